"""Swin V2: the stock class without a mixture, and no leak with one."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models.backbones import SwinTransformerV2
from torch import nn

from mmmixmim.models import MixMIM, MixMIMSwinTransformerV2, check_encoder
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from .contract import NECK, check_pretraining, shapes

ARCH = dict(
    embed_dims=16, depths=[2, 2, 2], num_heads=[1, 2, 4], extra_norm_every_n_blocks=0
)
SWIN = dict(arch=ARCH, img_size=64, window_size=4, out_indices=(2,), drop_path_rate=0.0)


@pytest.mark.parametrize(
    'options',
    [
        dict(arch=ARCH | dict(extra_norm_every_n_blocks=2)),
        dict(use_abs_pos_embed=True, with_cp=True),
        # Windows that stick out are padded, their biases made for smaller ones.
        dict(window_size=7, pad_small_map=True, pretrained_window_sizes=[4, 4, 4]),
    ],
    ids=['shifted', 'checkpointed', 'padded'],
)
def test_contract(options):
    options = SWIN | options
    check_encoder(
        lambda: MixMIMSwinTransformerV2(**options), lambda: SwinTransformerV2(**options)
    )


@pytest.mark.parametrize('arch', ['tiny', 'base'])
def test_published_sizes_have_the_stock_parameters(arch):
    model = MixMIMSwinTransformerV2(arch)
    assert shapes(model) == shapes(SwinTransformerV2(arch))
    assert (model.stride, model.img_size) == (32, (256, 256))
    assert model.out_channels == [model.embed_dims * 2**i for i in range(4)]


def test_pretraining():
    check_pretraining(MixMIMSwinTransformerV2(**SWIN))


def test_outputs_of_all_stages_with_a_mixture():
    model = MixMIMSwinTransformerV2(**SWIN | dict(out_indices=(0, 1, 2)))
    ownership = MixMIM(MixMIMSwinTransformerV2(**SWIN)).ownership(
        torch.rand(2, 3, 64, 96)
    )
    maps = model(torch.rand(2, 3, 64, 96), ownership)
    assert [tuple(each.shape) for each in maps] == [
        (2, 16, 16, 24),
        (2, 32, 8, 12),
        (2, 64, 4, 6),
    ]


def test_train_and_eval_return_the_encoder():
    model = MixMIMSwinTransformerV2(**SWIN, frozen_stages=0)
    assert model.train() is model and model.training
    assert not model.patch_embed.training  # frozen, as the stock class does
    assert model.eval() is model and not model.training


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(patch_cfg=dict(kernel_size=7, padding=3)), r'those of patch_cfg.*\(7, 7'),
        (
            dict(stage_cfgs=dict(downsample_cfg=dict(kernel_size=3, stride=2))),
            r'those of downsample_cfg in stage 1 .*kernel size \(3, 3\), stride \(2, 2',
        ),
    ],
)
def test_overlapping_patches_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MixMIMSwinTransformerV2(**SWIN, **options)


def test_maps_below_the_window():
    model = MixMIM(MixMIMSwinTransformerV2(**SWIN), NECK)
    with pytest.raises(UserError, match='2x3 tokens is smaller than the window of 4x4'):
        model.loss(torch.rand(2, 3, 32, 48))


def test_pretrained_weights_load_into_the_stock_class(tmp_path):
    backbone = dict(type='MixMIMSwinTransformerV2', **SWIN)
    source = MODELS.build(dict(type='MixMIM', backbone=backbone, neck=NECK))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'swin.pth')
    model = nn.ModuleDict(dict(backbone=SwinTransformerV2(**SWIN)))
    load_checkpoint(model, str(tmp_path / 'swin.pth'))
    for name, value in source.backbone.named_parameters():
        assert torch.equal(model.backbone.get_parameter(name), value), name
