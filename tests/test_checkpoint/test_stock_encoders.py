"""Checkpoints of encoders that have the names of a stock class."""

import math

import mmdet.models.backbones as det
import mmpretrain.models.backbones as pre
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmmixmim.checkpoint import load_encoder, load_whole, split_init_cfg
from mmmixmim.geometry import load_bias_table, resize_position_embedding
from mmmixmim.models import (
    MixMIM,
    MixMIMHiViT,
    MixMIMSwinTransformer,
    MixMIMTransformer,
)
from mmmixmim.validation import UserError

ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


def swin(cls=pre.SwinTransformer, **kwargs):
    options = dict(arch=ARCH, img_size=64, window_size=4, pad_small_map=True)
    return cls(**options | kwargs)


def swin_v2(**kwargs):
    arch = ARCH | dict(extra_norm_every_n_blocks=0)
    return swin(pre.SwinTransformerV2, arch=arch, **kwargs)


def convnext(**kwargs):
    return pre.ConvNeXt(arch=dict(depths=[1] * 4, channels=[8] * 4), **kwargs)


def pvt(**kwargs):
    options = dict(embed_dims=8, num_layers=[1] * 4, num_heads=[1] * 4)
    options |= dict(patch_sizes=[4, 2, 2, 2], paddings=[0] * 4, pretrain_img_size=64)
    return det.PyramidVisionTransformer(**options | kwargs)


def hivit(**kwargs):
    arch = dict(embed_dims=16, depths=[1, 1, 7], num_heads=2)
    return pre.HiViT(**dict(arch=arch, img_size=64, out_indices=[6]) | kwargs)


BUILDERS = [swin, swin_v2, convnext, pvt, hivit]


@pytest.fixture
def save(tmp_path):
    """Writer of random weights of a module below a prefix."""

    def write(module, prefix='backbone.', **others):
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        state = {f'{prefix}{name}': v for name, v in module.state_dict().items()}
        path = tmp_path / 'weights.pth'
        torch.save(dict(state_dict=state | others, meta=dict(epoch=1)), path)
        return path

    return write


def assert_equal(module, source):
    for name, value in source.state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name


@pytest.mark.parametrize('start', ['backbone.', '', 'teacher.backbone.'])
@pytest.mark.parametrize('build', BUILDERS)
def test_encoder_is_found_and_loaded(build, start, save, tmp_path):
    log = tmp_path / 'log.txt'
    MMLogger.get_instance(f'{build.__name__}-{start}', log_file=str(log))
    source, backbone = build(), build()
    others = {'neck.mask_token': torch.ones(1)} if start else {}
    load_encoder(backbone, save(source, start, **others))
    assert_equal(backbone, source)
    assert ('only the encoder is loaded, not: neck.mask_token' in log.read_text()) == (
        start != ''
    )


@pytest.mark.parametrize('prefix', ['b.net', 'b.net.'])
def test_prefix_chooses_among_encoders(save, prefix):
    first, second, backbone = (convnext() for _ in range(3))
    others = {f'a.{name}': value for name, value in first.state_dict().items()}
    path = save(second, 'b.net.', **others)
    load_encoder(backbone, path, prefix)
    assert_equal(backbone, second)
    with pytest.raises(UserError, match="encoders at 'b.net.', 'a.', not at 'backb"):
        load_encoder(backbone, path)


def test_prefix_of_init_cfg_chooses_among_encoders(save):
    first, second, backbone = (swin(MixMIMSwinTransformer) for _ in range(3))
    others = {f'a.{name}': value for name, value in first.state_dict().items()}
    path = save(second, 'b.net.', **others)
    backbone.init_cfg = dict(type='Pretrained', checkpoint=path, prefix='b.net')
    backbone.init_weights()
    assert_equal(backbone, second)


@pytest.mark.parametrize('build', [swin, swin_v2, convnext])
def test_norms_of_other_maps_may_be_new_or_unused(build, save, tmp_path):
    log = tmp_path / 'log.txt'
    MMLogger.get_instance(f'norms-{build.__name__}', log_file=str(log))
    one, all_maps = build(out_indices=[3]), build(out_indices=[0, 1, 2, 3])
    load_encoder(all_maps, save(one))
    assert_equal(all_maps, one)
    assert all_maps.norm0.weight.eq(1).all()
    load_encoder(one, save(all_maps))
    assert torch.equal(one.norm3.weight, all_maps.norm3.weight)
    text = log.read_text()
    assert 'not in the file, new: norm0.weight, norm0.bias, norm1.weight' in text
    assert 'in the file, not used: norm0.weight' in text


@pytest.mark.parametrize(
    'build, source, message',
    [
        (swin, swin_v2, r'it lacks .*relative_position_bias_table, .* first of'),
        (swin, convnext, r'it has no patch_embed.projection.weight. Its first entry'),
        (convnext, lambda: convnext(use_grn=True), 'unknown stages.0.0.grn.gamma'),
        (hivit, lambda: hivit(ape=False), 'it has no pos_embed'),
        (pvt, lambda: pvt(embed_dims=16), r'size mismatch .* The first of \d+ prob'),
        (convnext, lambda: convnext(in_channels=5), 'size mismatch'),
        (swin, lambda: swin(arch=ARCH | dict(depths=[1] * 4)), 'it lacks stages.2.bl'),
        (swin, lambda: swin(out_indices=(2,)), 'it lacks norm3.weight, norm3.bias'),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_loaded(build, source, message, save):
    backbone = build()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=f'does not fit this .*{message}'):
        load_encoder(backbone, save(source()))
    for name, value in before.items():
        assert torch.equal(backbone.state_dict()[name], value), name


@pytest.mark.parametrize(
    'build, options', [(swin, {}), (swin, dict(use_abs_pos_embed=True)), (hivit, {})]
)
def test_weights_of_another_encoder_are_named_as_such(build, options, save):
    model = MixMIMTransformer(ARCH, img_size=64)
    with pytest.raises(UserError, match='It holds another encoder: give the backbone'):
        load_encoder(model, save(build(**options)))


@pytest.mark.parametrize('indices', [True, False])
def test_tables_of_swin_are_resized(save, indices):
    source, larger = swin(), swin(window_size=7)
    path = save(source)
    if not indices:
        state = torch.load(path)['state_dict']
        state = {n: v for n, v in state.items() if not n.endswith('index')}
        torch.save(state, path)
    load_encoder(larger, path)
    fresh = swin(window_size=7).state_dict()
    for name, value in source.state_dict().items():
        loaded = larger.state_dict()[name]
        if name.endswith('table'):
            state = {name: value}
            load_bias_table(state, name, (7, 7), (4, 4))
            assert torch.equal(loaded, state[name]), name
        elif name.endswith('index'):
            assert torch.equal(loaded, fresh[name]), name
        else:
            assert torch.equal(loaded, value), name


@pytest.mark.parametrize(
    'build, size', [(pvt, 'pretrain_img_size'), (hivit, 'img_size')]
)
def test_position_embeddings_are_resized(build, size, save):
    source, larger = build(), build(**{size: 96})
    load_encoder(larger, save(source))
    resized = 0
    for name, value in source.named_parameters():
        found = larger.get_parameter(name)
        if name.endswith('pos_embed'):
            sides = [math.isqrt(each.shape[1]) for each in (value, found)]
            assert sides[0] < sides[1]
            value = resize_position_embedding(value, *((side, side) for side in sides))
            resized += 1
        assert torch.equal(found, value), name
    assert resized == (4 if build is pvt else 1)


def test_a_position_embedding_is_resized_to_two_different_sides(save):
    arch = dict(embed_dims=16, depths=[1, 1, 2], num_heads=2)
    source, wide = (MixMIMHiViT(arch, size) for size in (64, (32, 96)))
    load_encoder(wide, save(source))
    value = resize_position_embedding(source.pos_embed, (4, 4), (2, 6))
    assert torch.equal(wide.pos_embed, value)


def test_a_position_embedding_of_a_wide_map_is_resized(save):
    arch = dict(embed_dims=16, depths=[1, 1, 2], num_heads=2)
    source, larger = (MixMIMHiViT(arch, size) for size in ((32, 64), (64, 128)))
    load_encoder(larger, save(source))
    value = resize_position_embedding(source.pos_embed, (2, 4), (4, 8))
    assert torch.equal(larger.pos_embed, value)


def test_a_class_that_resizes_its_embedding_does_so_itself(save):
    arch = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    source, larger = (pre.VisionTransformer(arch, img_size=size) for size in (64, 96))
    load_encoder(larger, save(source))  # with a class token, (1, 17, 16) to (1, 37, 16)
    assert torch.equal(larger.pos_embed[:, 0], source.pos_embed[:, 0])


def test_a_checkpoint_without_a_type_is_pretrained():
    entry = dict(checkpoint='FILE')  # as in mmdet's configs of PVT
    others = [dict(type='Constant', layer='Linear')]
    assert split_init_cfg([entry, *others]) == ([entry], others)


def test_continuous_bias_of_swin_v2_takes_another_window(save):
    source, larger = swin_v2(), swin_v2(window_size=8)
    load_encoder(larger, save(source))
    for name, value in source.named_parameters():
        assert torch.equal(larger.get_parameter(name), value), name


def pretraining(backbone):
    neck = dict(decoder_embed_dims=16, decoder_depth=1, decoder_num_heads=2)
    return MixMIM(backbone=backbone, neck=neck)


def test_whole_model_with_another_encoder(save):
    source, model = (pretraining(swin(MixMIMSwinTransformer)) for _ in range(2))
    path = save(source, '')
    load_whole(model, path)
    assert_equal(model, source)
    wider = pretraining(swin(MixMIMSwinTransformer, arch=ARCH | dict(embed_dims=16)))
    with pytest.raises(UserError, match='does not fit this MixMIM: size mismatch'):
        load_whole(wider, path)
    alone = save(source.backbone)
    with pytest.raises(UserError, match='lacks neck.*mask_token.* config that it was'):
        load_whole(model, alone)


def test_whole_classifier_with_swin_v2(save):
    """Whose class drops the buffers from what it loads."""
    classifiers = [nn.ModuleDict(dict(backbone=swin_v2())) for _ in range(2)]
    load_whole(classifiers[0], save(classifiers[1], ''))
    assert_equal(*classifiers)
