import numpy as np
import pytest
import torch

from mmmixmim.validation import UserError
from mmmixmim.visualization import RGBProjection


def test_images_of_8_bits_keep_their_brightness():
    images = torch.randint(0, 256, (2, 3, 5, 6), dtype=torch.uint8)
    shown = RGBProjection(images)(images[0])
    assert np.array_equal(shown, images[0].permute(1, 2, 0).numpy())
    grey = RGBProjection(images[:, :1])(images[0, :1])
    assert np.array_equal(grey, images[0, :1].permute(1, 2, 0).expand(-1, -1, 3))


def test_other_values_are_stretched_from_black_to_white():
    """By the 2nd and 98th percentile of each channel."""
    ramp = torch.arange(101.0).view(1, 1, 1, 101) * 300 - 7000
    images = torch.cat([ramp, -ramp, 0 * ramp + 5], 1)
    shown = RGBProjection(images, stretch=True)(images[0])
    wanted = np.clip((np.arange(101) - 2) / 96, 0, 1) * 255
    assert np.allclose(shown[0, :, 0], wanted, atol=0.51)
    assert np.allclose(shown[0, ::-1, 1], wanted, atol=0.51)
    assert not shown[..., 2].any()


def test_bands_are_shown_in_their_order():
    images = torch.rand(2, 7, 5, 6) * 255
    shown = RGBProjection(images, bands=[5, 0, 2])(images[1])
    wanted = images[1, [5, 0, 2]].permute(1, 2, 0).double().round()
    assert np.array_equal(shown, wanted)
    grey = RGBProjection(images, bands=[4])(images[1])
    assert np.array_equal(grey[..., 0], grey[..., 2]) and grey.shape == (5, 6, 3)
    for bands in ([0, 1], [0, 1, 7], [-1, 0, 1], []):
        with pytest.raises(UserError, match='one or three channels from 0 to 6'):
            RGBProjection(images, bands)


def test_many_channels_show_their_principal_components():
    """Three sources in 13 channels of very different units come back as colours."""
    torch.manual_seed(0)
    sources = torch.randn(3, 2 * 20 * 20, dtype=torch.double)
    units = 10.0 ** torch.linspace(-3, 3, 13)[:, None]
    channels = units * (torch.randn(13, 3, dtype=torch.double) @ sources) + 40
    images = channels.view(13, 2, 20, 20).transpose(0, 1)
    shown = RGBProjection(images)
    colours = np.concatenate([shown(each).reshape(-1, 3) for each in images])
    kept = ((colours > 0) & (colours < 255)).all(1)
    design = np.c_[colours, np.ones(len(colours))][kept].astype(float)
    for source in sources.view(3, 2, -1).flatten(1).numpy():
        _, residual, _, _ = np.linalg.lstsq(design, source[kept], rcond=None)
        assert residual[0] < 1e-3 * ((source[kept] - source[kept].mean()) ** 2).sum()
    # Brighter in all channels is not darker in the picture.
    assert (shown.matrix.sum(1) > 0).all()


def test_all_pictures_get_the_same_projection():
    images = torch.rand(3, 6, 8, 8)
    shown = RGBProjection(images)
    assert np.array_equal(shown(images[1]), shown(images[1].clone()))
    assert not np.array_equal(shown(images[1]), RGBProjection(images[1:2])(images[1]))


def test_pixels_without_data_do_not_count():
    images = torch.rand(2, 5, 8, 8)
    weight = torch.ones(2, 8, 8)
    weight[:, :3] = 0
    changed = images.clone()
    changed[:, :, :3] = 1e6
    first, second = (RGBProjection(each, weight=weight) for each in (images, changed))
    assert np.array_equal(first(images[0])[3:], second(changed[0])[3:])


@pytest.mark.parametrize('channels', [1, 2, 3, 4, 13])
def test_constant_images_are_black_and_empty_ones_no_error(channels):
    images = torch.full((2, channels, 4, 4), 1234.5)
    assert not RGBProjection(images, stretch=True)(images[0]).any()
    nothing = RGBProjection(images, stretch=True, weight=torch.zeros(2, 4, 4))
    assert nothing(images[0]).shape == (4, 4, 3)
