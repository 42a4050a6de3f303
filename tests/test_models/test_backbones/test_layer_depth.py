"""The number of each layer, in stock encoders and in stock models."""

import mmdet.models.backbones as det
import mmpretrain.models.backbones as pre
import mmseg.models.backbones as seg
import pytest
import torch
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmmixmim.models import MixMIMSwinTransformer
from mmmixmim.models.backbones.layer_depth import layer_depths
from mmmixmim.validation import UserError

ARCH = dict(embed_dims=8, depths=[1, 2, 1], num_heads=[1, 2, 4])
SWIN = dict(
    arch=ARCH, window_size=4, out_indices=(0, 2), use_abs_pos_embed=True, img_size=64
)
SWIN_DENSE = dict(
    embed_dims=8,
    depths=[1, 2, 1],
    num_heads=[1, 2, 4],
    strides=(4, 2, 2),
    out_indices=(0, 2),
    use_abs_pos_embed=True,
    pretrain_img_size=64,
    window_size=4,
)
SWIN_DEPTHS = {
    'absolute_pos_embed': 0,
    'patch_embed.projection.weight': 0,
    'stages.0.blocks.0.attn.w_msa.qkv.weight': 1,
    'stages.0.downsample.reduction.weight': 2,
    'stages.1.blocks.0.norm1.weight': 2,
    'stages.1.blocks.1.norm1.weight': 3,
    'stages.1.downsample.norm.bias': 4,
    'stages.2.blocks.0.ffn.layers.1.weight': 4,
    'norm2.weight': 4,
    'norm0.weight': 5,
}
PVT = dict(
    embed_dims=8,
    num_layers=[1, 2, 1, 1],
    num_heads=[1, 1, 1, 1],
    sr_ratios=[2, 1, 1, 1],
    mlp_ratios=[2, 2, 2, 2],
    pretrain_img_size=64,
)
CONVNEXT = dict(arch=dict(depths=[2, 1, 10, 1], channels=[8] * 4), out_indices=(0, 3))
CASES = {
    'swin': (lambda: pre.SwinTransformer(**SWIN), SWIN_DEPTHS, 6),
    'ours': (lambda: MixMIMSwinTransformer(**SWIN), SWIN_DEPTHS, 6),
    'mmdet swin': (lambda: det.SwinTransformer(**SWIN_DENSE), SWIN_DEPTHS, 6),
    'mmseg swin': (lambda: seg.SwinTransformer(**SWIN_DENSE), SWIN_DEPTHS, 6),
    'swin v2': (
        lambda: pre.SwinTransformerV2(
            arch=ARCH | dict(extra_norm_every_n_blocks=2),
            img_size=64,
            window_size=4,
            pretrained_window_sizes=[0, 0, 0],
            out_indices=(0, 2),
            use_abs_pos_embed=True,
        ),
        {
            'absolute_pos_embed': 0,
            'patch_embed.norm.weight': 0,
            'stages.0.blocks.0.attn.w_msa.cpb_mlp.0.weight': 1,
            'stages.1.downsample.reduction.weight': 2,
            'stages.1.blocks.0.attn.w_msa.logit_scale': 2,
            'stages.1.blocks.1.norm3.weight': 3,
            'stages.2.downsample.norm.weight': 4,
            'stages.2.blocks.0.norm2.bias': 4,
            'norm2.weight': 4,
            'norm0.bias': 5,
        },
        6,
    ),
    'pvt': (
        lambda: det.PyramidVisionTransformer(
            patch_sizes=[4, 2, 2, 2], paddings=[0] * 4, **PVT
        ),
        {
            'layers.0.0.projection.weight': 0,
            'layers.0.1.0.pos_embed': 0,
            'layers.0.1.1.attn.sr.weight': 1,
            'layers.1.0.norm.weight': 2,
            'layers.1.1.0.pos_embed': 2,
            'layers.1.1.1.attn.attn.in_proj_weight': 2,
            'layers.1.1.2.norm2.weight': 3,
            'layers.3.1.1.norm1.weight': 5,
        },
        7,
    ),
    'pvt v2': (
        lambda: det.PyramidVisionTransformerV2(**PVT),
        {
            'layers.0.0.projection.weight': 0,
            'layers.0.1.0.norm1.weight': 1,
            'layers.0.2.weight': 1,
            'layers.1.0.projection.weight': 2,
            'layers.1.1.1.norm1.weight': 3,
            'layers.1.2.weight': 3,
            'layers.3.2.bias': 5,
        },
        7,
    ),
    'hivit': (  # the stock forward pass needs more blocks in the last stage
        lambda: pre.HiViT(
            arch=dict(embed_dims=16, depths=[1, 1, 7], num_heads=2),
            img_size=64,
            out_indices=[6],
        ),
        {
            'pos_embed': 0,
            'patch_embed.proj.weight': 0,
            'blocks.0.mlp.fc1.weight': 1,
            'blocks.1.mlp.fc1.weight': 2,
            'blocks.2.reduction.weight': 3,
            'blocks.3.norm2.weight': 3,
            'blocks.5.norm.weight': 5,
            'blocks.6.attn.qkv.weight': 5,
            'blocks.7.attn.qkv.weight': 6,
        },
        13,
    ),
    'convnext': (  # as its authors group them: 12 layers, three blocks in the middle
        lambda: pre.ConvNeXt(**CONVNEXT),
        {
            'downsample_layers.0.0.weight': 0,
            'stages.0.1.norm.weight': 1,
            'downsample_layers.1.1.weight': 2,
            'stages.1.0.gamma': 2,
            'downsample_layers.2.0.weight': 3,
            'stages.2.2.norm.weight': 3,
            'stages.2.3.norm.weight': 4,
            'stages.2.9.norm.weight': 6,
            'downsample_layers.3.1.weight': 12,
            'stages.3.0.norm.weight': 12,
            'norm0.weight': 13,
            'norm3.weight': 13,
        },
        14,
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_each_parameter_has_its_layer(case):
    build, wanted, layers = CASES[case]
    backbone = build()
    names = [name for name, _ in backbone.named_parameters()]
    depths = layer_depths(backbone, names)
    assert list(depths) == names
    assert {count for _, count in depths.values()} == {layers}
    assert {name: depths[name][0] for name in wanted} == wanted
    assert {depth for depth, _ in depths.values()} <= set(range(layers))


@pytest.mark.parametrize('case', CASES)
def test_numbers_grow_in_the_order_of_the_forward_pass(case):
    build, _, layers = CASES[case]
    backbone = build()
    backbone.eval()
    called = []
    for name, module in backbone.named_modules():
        own = [f'{name}.{each}' for each, _ in module.named_parameters(recurse=False)]
        if name and own:
            module.register_forward_pre_hook(lambda *_, own=own: called.extend(own))
    backbone(torch.rand(1, 3, 64, 64))
    depths = layer_depths(backbone, called)
    numbers = [depths[name][0] for name in called]
    within = [number for number in numbers if number < layers - 1]  # no norms of maps
    assert within == sorted(within)
    if case != 'convnext':  # which has fewer blocks than published layers here
        assert set(within) == set(range(layers - 1))


def scales(model):
    """Learning rate of each parameter, relative to the head's, with decay 0.5."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=1.0),
            constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: group['lr']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


FOUR_STAGES = dict(
    type='SwinTransformer',
    embed_dims=8,
    depths=[1, 1, 2, 1],
    num_heads=[1, 2, 4, 8],
    init_cfg=None,
)
CHANNELS = [8, 16, 32, 64]


def check_model(model):
    found = scales(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, scale in found.items():
        if not name.startswith('backbone.'):
            assert scale == 1, name
    wanted = {
        'patch_embed.norm.weight': 6,
        'stages.0.blocks.0.norm1.weight': 5,
        'stages.1.downsample.reduction.weight': 3,
        'stages.2.blocks.0.attn.w_msa.proj.weight': 3,
        'stages.3.blocks.0.ffn.layers.1.bias': 1,
        'norm3.weight': 1,
        'norm2.weight': 0,
    }
    assert {name: found[f'backbone.{name}'] for name in wanted} == {
        name: 0.5**above for name, above in wanted.items()
    }


@pytest.mark.parametrize(
    'backbone',
    [
        FOUR_STAGES,
        dict(
            type='mmpretrain.SwinTransformer',
            arch=dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
            out_indices=(0, 1, 2, 3),
        ),
    ],
    ids=['of mmdet', 'of mmpretrain'],
)
def test_stock_swin_in_mask_rcnn(backbone):
    from mmdet.registry import MODELS

    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone = backbone
    cfg.neck.in_channels = CHANNELS
    init_default_scope('mmdet')
    check_model(MODELS.build(cfg))


def test_stock_swin_in_upernet():
    from mmseg.registry import MODELS

    head = dict(
        type='UPerHead',
        in_channels=CHANNELS,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=5,
    )
    init_default_scope('mmseg')
    check_model(
        MODELS.build(
            dict(type='EncoderDecoder', backbone=FOUR_STAGES, decode_head=head)
        )
    )


class Flat(nn.Module):
    """Numbers as mmpretrain's HiViT: all blocks like the head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(2, 2)
        self.blocks = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def get_layer_depth(self, param_name, prefix=''):
        return (0 if param_name.startswith(f'{prefix}stem') else 3), 4


def test_numbers_without_decay_are_refused():
    with pytest.raises(UserError, match='Flat.* up to 2, .* gives them 3 of 4'):
        scales(Flat())


def test_convnext_without_four_stages_is_refused():
    """Its method would give the last block the rate of one in the middle."""
    arch = dict(depths=[1, 1, 4], channels=[8, 16, 32])
    with pytest.raises(UserError, match='up to 6, .* gives them 1, 2, 3, 4, 7 of 8'):
        scales(pre.ConvNeXt(arch, out_indices=[2]))


def test_nearest_class_decides():
    """A subclass of a listed class may number its layers itself."""

    class Own(pre.SwinTransformer):
        def get_layer_depth(self, param_name, prefix=''):
            return (1 if 'stages.0' in param_name else 2), 4

    name = 'stages.0.blocks.0.norm1.weight'
    assert layer_depths(Own(**SWIN), [name, 'norm0.weight'])[name] == (1, 4)


def test_unknown_parameter_is_named():
    class More(pre.SwinTransformer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.adapter = nn.Linear(2, 2)

    with pytest.raises(UserError, match=r'layer of adapter\.weight in More is unknown'):
        scales(More(**SWIN))


def test_class_of_another_package_is_not_listed():
    """timm's class has the same name, and other names inside."""
    swin = pytest.importorskip('timm.models.swin_transformer').SwinTransformer
    backbone = swin(img_size=32, embed_dim=8, depths=(1,), num_heads=(1,))
    with pytest.raises(UserError, match='no backbone whose layers are numbered'):
        scales(backbone)
