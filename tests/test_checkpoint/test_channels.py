"""Published weights for images of other channels and sizes."""

import pytest
import torch

from mmmixmim.checkpoint import fit_in_channels, load_encoder
from mmmixmim.models import MixMIMSwinTransformer, MixMIMTransformer
from mmmixmim.validation import UserError


@pytest.mark.parametrize('mode', ['mean', 'repeat'])
@pytest.mark.parametrize('channels', [1, 2, 4, 6, 13])
def test_response_to_equal_channels_stays(mode, channels):
    weight = torch.randn(8, 3, 4, 4)
    fitted = fit_in_channels(weight, channels, mode)
    assert fitted.shape == (8, channels, 4, 4)
    grey = torch.randn(2, 1, 4, 4)
    before = torch.einsum('dchw,bchw->bd', weight, grey.expand(-1, 3, -1, -1))
    after = torch.einsum('dchw,bchw->bd', fitted, grey.expand(-1, channels, -1, -1))
    # Repeating drops channels or counts some of them twice.
    if mode == 'mean' or channels % 3 == 0:
        assert torch.allclose(before, after, atol=1e-5)


def test_ways_to_fit_are_those_documented():
    weight = torch.randn(8, 3, 4, 4)
    assert torch.equal(fit_in_channels(weight, 3, 'mean'), weight)
    mean = fit_in_channels(weight, 6, 'mean')
    assert torch.allclose(mean, weight.mean(1, keepdim=True).expand(8, 6, 4, 4) / 2)
    repeat = fit_in_channels(weight, 4, 'repeat')
    assert torch.allclose(repeat, torch.cat([weight, weight[:, :1]], 1) * 0.75)
    with pytest.raises(UserError, match="'mean', 'repeat' or None, got 'sum'"):
        fit_in_channels(weight, 4, 'sum')


def swin(**kwargs):
    arch = dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2])
    return MixMIMSwinTransformer(
        arch, img_size=32, window_size=4, out_indices=(1,), **kwargs
    )


@pytest.mark.parametrize('kind', ['MixMIM', 'Swin'])
@pytest.mark.parametrize('mode', ['mean', 'repeat'])
def test_encoder_starts_from_weights_of_other_channels(
    make_backbone, tmp_path, kind, mode
):
    make = make_backbone if kind == 'MixMIM' else swin
    source, target = make(), make(in_channels=13)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='does not fit'):
        load_encoder(target, tmp_path / 'a.pth')
    load_encoder(target, tmp_path / 'a.pth', in_channels=mode)
    theirs, own = source.state_dict(), target.state_dict()
    (name,) = [n for n in own if own[n].shape != theirs[n].shape]
    assert torch.equal(own[name], fit_in_channels(theirs[name], 13, mode))
    assert all(torch.equal(own[n], theirs[n]) for n in own if n != name)


def test_error_of_other_channels_says_what_to_do(make_backbone, tmp_path):
    torch.save(dict(state_dict=make_backbone().state_dict()), tmp_path / 'a.pth')
    target = make_backbone(in_channels=4)
    with pytest.raises(UserError, match="in_channels='mean'"):
        load_encoder(target, tmp_path / 'a.pth')
    with pytest.raises(UserError, match="got 'sum'"):
        load_encoder(target, tmp_path / 'a.pth', in_channels='sum')


def test_error_of_another_patch_size_says_nothing_of_channels(tiny_arch, tmp_path):
    source = MixMIMTransformer(tiny_arch, img_size=64)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    target = MixMIMTransformer(tiny_arch, img_size=64, patch_size=2)
    with pytest.raises(UserError, match=r'patch_size .* in this model\.$'):
        load_encoder(target, tmp_path / 'a.pth')


def test_config_starts_from_weights_of_other_channels_and_sizes(tmp_path, tiny_arch):
    source = MixMIMTransformer(tiny_arch, img_size=64)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'a.pth')
    target = MixMIMTransformer(
        tiny_arch,
        img_size=96,
        in_channels=2,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), in_channels='mean'
        ),
    )
    target.init_weights()
    found = target.state_dict()
    wanted = fit_in_channels(source.patch_embed.proj.weight, 2, 'mean')
    assert torch.equal(found['patch_embed.proj.weight'], wanted)
    name = 'layers.2.blocks.0.mlp.fc1.weight'
    assert torch.equal(found[name], source.state_dict()[name])
    assert target(torch.rand(1, 2, 96, 96))[0].isfinite().all()
