"""What the encoders made of stock classes share."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import load_checkpoint
from mmpretrain.engine.optimizers import LearningRateDecayOptimWrapperConstructor
from mmpretrain.models import ImageClassifier
from torch import nn

from mmmixmim.checkpoint import load_encoder
from mmmixmim.models import (
    MixMIMConvNeXt,
    MixMIMHiViT,
    MixMIMPyramidVisionTransformer,
    MixMIMSwinTransformer,
    MixMIMSwinTransformerV2,
    MixMIMTransformer,
)
from mmmixmim.validation import UserError

ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


def mixmim(**kwargs):
    return MixMIMTransformer(ARCH, **dict(img_size=64) | kwargs)


def swin(**kwargs):
    options = dict(img_size=64, window_size=4, pad_small_map=True)
    return MixMIMSwinTransformer(ARCH, **options | kwargs)


def swin_v2(**kwargs):
    arch = ARCH | dict(extra_norm_every_n_blocks=0)
    options = dict(img_size=64, window_size=4, pad_small_map=True)
    return MixMIMSwinTransformerV2(arch, **options | kwargs)


def convnext(**kwargs):
    arch = dict(depths=[1] * 4, channels=[8] * 4)
    return MixMIMConvNeXt(arch, **dict(img_size=64) | kwargs)


def pvt(img_size=64, **kwargs):
    options = dict(embed_dims=8, num_layers=[1] * 4, num_heads=[1] * 4)
    options |= dict(patch_sizes=[4, 2, 2, 2], paddings=[0] * 4)
    return MixMIMPyramidVisionTransformer(img_size, **options | kwargs)


def hivit(**kwargs):
    arch = dict(embed_dims=16, depths=[1, 1, 2], num_heads=2)
    return MixMIMHiViT(**dict(arch=arch, img_size=64) | kwargs)


BUILDERS = [mixmim, swin, swin_v2, convnext, pvt, hivit]


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


@pytest.fixture
def save(tmp_path):
    """Writer of an encoder, as pretraining saves it."""

    def write(encoder):
        path = tmp_path / 'epoch_1.pth'
        torch.save(nn.ModuleDict(dict(backbone=encoder)).state_dict(), path)
        return str(path)

    return write


@pytest.mark.parametrize(
    'build, before, after',
    [
        (swin, {}, dict(window_size=7)),
        (swin, dict(use_abs_pos_embed=True), dict(img_size=96, window_size=6)),
        (swin_v2, {}, dict(window_size=8)),
        (pvt, {}, dict(img_size=96)),
        (pvt, {}, dict(img_size=(64, 96))),
        (hivit, {}, dict(img_size=96)),
        (hivit, dict(ape=False, rpe=True), dict(img_size=96)),
    ],
)
def test_another_size_loads_by_load_from(build, before, after, save):
    """As ``load_encoder`` loads it, though nothing but MMEngine reads the file."""
    source = randomised(build(**before))
    path = save(source)
    wanted, detector = (
        build(**before | after),
        nn.ModuleDict(dict(backbone=build(**before | after))),
    )
    load_encoder(wanted, path)
    load_checkpoint(detector, path)
    state = detector.state_dict()
    for name, value in wanted.state_dict().items():
        assert torch.equal(state[f'backbone.{name}'], value), name


@pytest.mark.parametrize('build', BUILDERS)
def test_pretrained_is_short_for_init_cfg(build, save):
    """Which mmsegmentation sets from ``pretrained`` of the model."""
    source = randomised(build())
    path = save(source)
    encoder = build(pretrained=path)
    encoder.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(encoder.state_dict()[name], value), name
    with pytest.raises(UserError, match='both say how to start: leave one of them out'):
        build(pretrained=path, init_cfg=dict(type='TruncNormal', layer='Linear'))


@pytest.mark.parametrize('alone', [True, False])
def test_the_log_says_what_was_loaded(alone, save, tmp_path):
    path = save(randomised(convnext()))
    log = tmp_path / 'log.txt'
    MMLogger.get_instance(f'loaded-{alone}', log_file=str(log))
    model = convnext(pretrained=path)
    if not alone:
        backbone, model = model, BaseModule()
        model.backbone = backbone
    model.init_weights()
    text = log.read_text()
    assert text.count(f'Loaded the encoder from {path}.') == 1
    if not alone:
        _, table = text.split('backbone.downsample_layers.0.0.weight')
        assert table.splitlines()[1].strip() == f'load from {path}'


@pytest.mark.parametrize('build', [swin, swin_v2, pvt, hivit])
def test_layer_decay_of_mmpretrain_numbers_every_block(build):
    model = ImageClassifier(
        backbone=build(),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=8),
    )
    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(
            type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1)
        ),
        dict(layer_decay_rate=0.5),
    )
    groups = constructor(model).optimizer.param_groups
    layers = {group['param_name']: group['layer_id'] for group in groups}
    assert set(layers.values()) == set(range(max(layers.values()) + 1))
    assert layers['head.fc.weight'] == max(layers.values())
