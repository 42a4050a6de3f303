"""Encoders exported to timm compute the same features there."""

import mmdet.models.backbones as det
import mmpretrain.models.backbones as pre
import pytest
import timm
import torch
from torch import nn

from mmmixmim.checkpoint import to_timm
from mmmixmim.models import MixMIMSwinTransformer
from mmmixmim.validation import UserError

DEPTHS, HEADS, CHANNELS = [2, 1, 2, 1], [1, 2, 4, 8], [8, 16, 32, 64]
ARCH = dict(embed_dims=8, depths=DEPTHS, num_heads=HEADS)
ARCH_V2 = ARCH | dict(extra_norm_every_n_blocks=0)
IN_TIMM = dict(img_size=128, embed_dim=8, depths=DEPTHS, num_heads=HEADS, window_size=4)
WINDOWS = dict(img_size=128, window_size=4)
CONVNEXT = dict(arch=dict(depths=DEPTHS, channels=CHANNELS))
CONVNEXT_IN_TIMM = dict(depths=DEPTHS, dims=CHANNELS)
V2 = dict(use_grn=True, layer_scale_init_value=0.0)
CASES = {
    'swin': (
        lambda **kwargs: pre.SwinTransformer(ARCH, **WINDOWS, **kwargs),
        ('swin_tiny_patch4_window7_224', IN_TIMM),
    ),
    'swin pretrained here': (
        lambda **kwargs: MixMIMSwinTransformer(ARCH, **WINDOWS, **kwargs),
        ('swin_tiny_patch4_window7_224', IN_TIMM),
    ),
    'swin v2': (
        lambda **kwargs: pre.SwinTransformerV2(ARCH_V2, **WINDOWS, **kwargs),
        ('swinv2_tiny_window8_256', IN_TIMM),
    ),
    'swin, shifted in its last map': (
        lambda **kwargs: pre.SwinTransformer(
            ARCH | dict(depths=[2] * 4), **WINDOWS, **kwargs
        ),
        ('swin_tiny_patch4_window7_224', IN_TIMM | dict(depths=[2] * 4)),
    ),
    'swin, padded': (
        lambda **kwargs: pre.SwinTransformer(
            ARCH | dict(depths=[2] * 4), pad_small_map=True, **WINDOWS, **kwargs
        ),
        (
            'swin_tiny_patch4_window7_224',
            IN_TIMM | dict(depths=[2] * 4, always_partition=True),
        ),
    ),
    'convnext': (
        lambda **kwargs: pre.ConvNeXt(**CONVNEXT, **kwargs),
        ('convnext_tiny', CONVNEXT_IN_TIMM),
    ),
    'convnext v2': (
        lambda **kwargs: pre.ConvNeXt(**CONVNEXT, **V2, **kwargs),
        ('convnextv2_tiny', CONVNEXT_IN_TIMM),
    ),
}


def randomise(module):
    """No two channels alike, so that every wrong order shows."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    module.eval()
    return module


@pytest.mark.parametrize('case', CASES)
def test_features_are_the_same(case):
    build, (name, options) = CASES[case]
    encoder = randomise(build(out_indices=[1, 3]))
    state = {f'backbone.{name}': value for name, value in encoder.state_dict().items()}
    weights, left_out = to_timm(state | {'neck.mask_token': torch.ones(1)})
    assert left_out == ['neck.mask_token', 'norm1.weight', 'norm1.bias']
    model = timm.create_model(name, num_classes=0, **options).eval()
    model.load_state_dict(weights, strict=True)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        wanted = encoder(images)[-1]
        found = model(images)
    pooled = wanted if wanted.ndim == 2 else wanted.mean((2, 3))
    assert pooled.std() > 0.1
    assert torch.allclose(found, pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('version', [{}, V2], ids=['v1', 'v2'])
def test_convnext_that_norms_before_it_pools(version):
    """As docs/checkpoints.md says."""
    encoder = randomise(
        pre.ConvNeXt(**CONVNEXT, **version, gap_before_final_norm=False)
    )
    name = 'convnextv2_tiny' if version else 'convnext_tiny'
    model = timm.create_model(name, num_classes=0, **CONVNEXT_IN_TIMM).eval()
    model.load_state_dict(to_timm(encoder.state_dict())[0], strict=True)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        wanted = encoder(images)[-1].mean((2, 3))
        found = model.head.norm(model.forward_features(images)).mean((2, 3))
    assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_values_are_only_reordered(case):
    encoder = randomise(CASES[case][0]())
    weights, _ = to_timm(encoder.state_dict())
    parameters = dict(encoder.named_parameters()).values()
    assert len(weights) == len(parameters)
    for wanted, found in zip(parameters, weights.values(), strict=True):
        assert found.shape == wanted.shape
        assert torch.equal(found.flatten().sort()[0], wanted.flatten().sort()[0])


@pytest.mark.parametrize(
    'build, message',
    [
        (
            lambda: det.PyramidVisionTransformer(num_layers=[1] * 4),
            'no MixMIMTransformer, HiViT or PVT V1. The first entry is layers.0.0.proj',
        ),
        (
            lambda: pre.SwinTransformer(ARCH, use_abs_pos_embed=True, **WINDOWS),
            "timm's class has no absolute_pos_embed",
        ),
        (
            lambda: pre.SwinTransformerV2(
                ARCH | dict(extra_norm_every_n_blocks=2), **WINDOWS
            ),
            r'timm.s class has no stages.0.blocks.1.norm3.weight, .* first of 4',
        ),
    ],
)
def test_what_timm_has_not_is_refused(build, message):
    with pytest.raises(UserError, match=message):
        to_timm(build().state_dict())


def test_our_own_encoder_is_refused(make_mixmim):
    with pytest.raises(UserError, match=r'first entry is (neck|backbone)\.'):
        to_timm(make_mixmim().state_dict())


def test_prefix_chooses_the_encoder():
    first, second = (randomise(CASES['convnext'][0]()).state_dict() for _ in range(2))
    state = {f'a.{name}': value for name, value in first.items()}
    state |= {f'b.{name}': value for name, value in second.items()}
    weights, left_out = to_timm(state, 'b')
    assert torch.equal(weights['stem.0.weight'], second['downsample_layers.0.0.weight'])
    assert len(left_out) == len(first)
    with pytest.raises(UserError, match="encoders at 'a.', 'b.', not at 'backbone.'"):
        to_timm(state)
