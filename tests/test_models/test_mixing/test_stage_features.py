import pytest
import torch

from mmmixmim.models import MixMIMTransformer
from mmmixmim.models.mixing import stage_features
from mmmixmim.registry import MODELS

SMALL = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
ENCODERS = {
    'mixmim': (dict(type='MixMIMTransformer', arch=SMALL), [16, 32, 64, 128]),
    'swin': (
        dict(type='MixMIMSwinTransformer', arch=SMALL, pad_small_map=True),
        [16, 32, 64, 128],
    ),
    'swin_v2': (
        dict(
            type='MixMIMSwinTransformerV2',
            arch=SMALL | dict(extra_norm_every_n_blocks=0),
            pad_small_map=True,
        ),
        [16, 32, 64, 128],
    ),
    'convnext': (
        dict(
            type='MixMIMConvNeXt',
            # The map of the first stage has as many rows and columns as channels.
            arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]),
        ),
        [16, 32, 64, 128],
    ),
    'hivit': (
        dict(
            type='MixMIMHiViT', arch=dict(embed_dims=64, depths=[1, 1, 3], num_heads=2)
        ),
        [64],
    ),
}


@pytest.mark.parametrize('name', ENCODERS)
def test_every_encoder_gives_the_channels_of_its_stages(name):
    config, channels = ENCODERS[name]
    encoder = MODELS.build(dict(config, img_size=64)).eval()
    features = stage_features(encoder, torch.randn(3, 3, 64, 64))
    assert [tuple(each.shape) for each in features] == [(3, c) for c in channels]
    assert not any(module._forward_hooks for module in encoder.modules())


def test_pvt():
    pytest.importorskip('mmdet')
    encoder = MODELS.build(
        dict(
            type='MixMIMPyramidVisionTransformer',
            pretrain_img_size=64,
            embed_dims=16,
            num_layers=[1, 1, 1, 1],
            num_heads=[1, 2, 4, 8],
        )
    ).eval()
    features = stage_features(encoder, torch.randn(2, 3, 64, 64))
    assert [each.shape[1] for each in features] == encoder.out_channels


def test_features_are_the_pooled_maps_of_each_stage():
    torch.manual_seed(0)
    encoder = MixMIMTransformer(SMALL, img_size=64).eval()
    torch.manual_seed(0)
    every = MixMIMTransformer(SMALL, img_size=64, out_indices=(0, 1, 2, 3)).eval()
    every.load_state_dict(encoder.state_dict(), strict=False)
    for i in range(3):  # the maps of inner stages have no norm
        setattr(every, f'norm{i}', torch.nn.Identity())
    images = torch.randn(2, 3, 64, 64)
    found, maps = stage_features(encoder, images), every(images)
    for each, wanted in zip(found, maps, strict=True):
        torch.testing.assert_close(each, wanted.mean((2, 3)))


def test_hooks_are_removed_after_an_error():
    encoder = MixMIMTransformer(SMALL, img_size=64)
    with pytest.raises(ValueError):
        stage_features(encoder, torch.randn(2, 1, 64, 64))
    assert not any(module._forward_hooks for module in encoder.modules())
