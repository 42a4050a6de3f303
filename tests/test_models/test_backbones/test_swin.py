"""Swin: the stock class without a mixture, and no leak with one."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import SwinTransformer
from mmpretrain.registry import MODELS as STOCK

from mmmixmim.models import MixMIM, MixMIMSwinTransformer, TokenOwnership, check_encoder
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from .contract import NECK, check_pretraining, shapes

ARCH = dict(embed_dims=16, depths=[2, 2, 2], num_heads=[1, 2, 4])
SWIN = dict(arch=ARCH, img_size=64, window_size=4, out_indices=(2,), drop_path_rate=0.0)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(use_abs_pos_embed=True, with_cp=True),
        dict(window_size=7, pad_small_map=True),  # windows that stick out are padded
    ],
    ids=['shifted', 'checkpointed', 'padded'],
)
def test_contract(options):
    options = SWIN | options
    check_encoder(
        lambda: MixMIMSwinTransformer(**options), lambda: SwinTransformer(**options)
    )


@pytest.mark.parametrize('arch', ['tiny', 'base'])
def test_published_sizes_have_the_stock_parameters(arch):
    model = MixMIMSwinTransformer(arch)
    assert shapes(model) == shapes(SwinTransformer(arch))
    assert (model.stride, model.img_size) == (32, (224, 224))


def test_pretraining():
    check_pretraining(MixMIMSwinTransformer(**SWIN))


def test_weights_in_low_precision_give_maps_in_it():
    model = MixMIMSwinTransformer(**SWIN).bfloat16()
    images = torch.rand(2, 3, 64, 64).bfloat16()
    for ownership in (None, TokenOwnership(torch.rand(1, 4, 4) < 0.5)):
        assert model(images, ownership)[0].dtype == torch.bfloat16


def test_all_owners_see_the_padding():
    """A single image, all of it in the place of its partner, is a plain image."""
    model = MixMIMSwinTransformer(**SWIN | dict(window_size=7, pad_small_map=True))
    model.eval()
    images = torch.rand(1, 3, 64, 64)
    (found,) = model(images, TokenOwnership(torch.ones(1, 4, 4)))
    torch.testing.assert_close(found, model(images)[0])


def test_train_and_eval_return_the_encoder():
    model = MixMIMSwinTransformer(**SWIN, frozen_stages=0)
    assert model.train() is model and model.training
    assert not model.patch_embed.training  # frozen, as the stock class does
    assert model.eval() is model and not model.training


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(out_after_downsample=True), 'does not support out_after_downsample'),
        (dict(patch_cfg=dict(kernel_size=7, padding=3)), r'those of patch_cfg.*\(7, 7'),
        (
            dict(stage_cfgs=dict(downsample_cfg=dict(kernel_size=3, stride=2))),
            r'those of downsample_cfg in stage 0 .*kernel size \(3, 3\), stride \(2, 2',
        ),
        (dict(patch_cfg=dict(dilation=2)), r'dilation \(2, 2\)'),
        (dict(frozen_stages=3), 'frozen_stages.*between -1 and 2, got 3'),
        (dict(patch_size=(4, 2)), r'same stride in height and width, got \(4, 2\)'),
    ],
)
def test_what_cannot_be_mixed_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        MixMIMSwinTransformer(**SWIN, **options)


def test_stride_follows_from_all_patches():
    stages = dict(downsample_cfg=dict(kernel_size=3, padding='same'))
    model = MixMIMSwinTransformer(**SWIN | dict(img_size=144), stage_cfgs=stages)
    assert model.stride == 4 * 3 * 3


def test_images_that_do_not_fit():
    model = MixMIM(MixMIMSwinTransformer(**SWIN))
    with pytest.raises(UserError, match='64x72 is not divisible by the stride 16'):
        model.loss(torch.rand(2, 3, 64, 72))
    with pytest.raises(UserError, match=r'\(1 or 2, 4, 4\).*got \(1, 2, 2\)'):
        model.loss(torch.rand(2, 3, 64, 64), mask=torch.ones(1, 2, 2))
    with pytest.raises(UserError, match='2x2 tokens is smaller than the window of 4x4'):
        model.loss(torch.rand(2, 3, 32, 32))


def test_pretrained_weights_drop_into_the_stock_classifier(tmp_path):
    """By MMEngine's own way to load a part of a checkpoint."""
    backbone = dict(type='MixMIMSwinTransformer', **SWIN)
    source = MODELS.build(dict(type='MixMIM', backbone=backbone, neck=NECK))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'swin.pth')

    init_default_scope('mmpretrain')
    init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'), prefix='backbone.'
    )
    backbone = dict(type='SwinTransformer', init_cfg=init_cfg, **SWIN)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    neck = dict(type='GlobalAveragePooling')
    model = STOCK.build(
        dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    )
    assert type(model.backbone) is SwinTransformer
    model.init_weights()
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
