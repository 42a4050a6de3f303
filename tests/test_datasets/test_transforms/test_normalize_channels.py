import warnings

import numpy as np
import pytest
import tifffile
import torch

from mmmixmim.datasets import ChannelStatistics, LoadRasterCrop, NormalizeChannels
from mmmixmim.models import RasterDataPreprocessor
from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError

LOWEST = float(np.finfo('float32').min)


def draw(channels=5, dtype='uint16'):
    drawn = np.random.default_rng(0).random((32, 32, channels))
    return (drawn * 200 + 1).astype(dtype)


def statistics(channels=5):
    rng = np.random.default_rng(1)
    return dict(
        mean=rng.uniform(50, 150, channels).tolist(),
        std=rng.uniform(0.1, 60, channels).tolist(),
    )


def as_in_pretraining(pixels, values, **options):
    whole = dict(crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1), max_attempts=0)
    crop = LoadRasterCrop(scale=32, **whole, **options)(dict(img=pixels))['img']
    batch = torch.from_numpy(crop).permute(2, 0, 1)[None]
    found = RasterDataPreprocessor(**values)(dict(inputs=batch, data_samples=None))
    return found['inputs'][0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32', 'float64'])
def test_values_are_those_of_pretraining(dtype):
    pixels, values = draw(dtype=dtype), statistics()
    found = NormalizeChannels(**values)(dict(img=pixels))['img']
    assert found.dtype == np.float32
    assert np.array_equal(found, as_in_pretraining(pixels, values))


@pytest.mark.parametrize('no_data', [0, -7.1, 'nan', LOWEST, 'inf'])
def test_pixels_without_data_are_those_of_pretraining(no_data):
    """Also the lowest float, which would overflow when it is normalised."""
    pixels, values = draw(dtype='float32'), statistics()
    pixels[3:9, 4:20, 2] = float(no_data)  # one channel is enough
    before = pixels.copy()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = NormalizeChannels(**values, no_data=no_data)(dict(img=pixels))['img']
    assert (found[3:9, 4:20] == 0).all() and (found == 0).sum() == 6 * 16 * 5
    wanted = as_in_pretraining(pixels, values, no_data=no_data)
    assert np.array_equal(found, wanted)
    assert np.array_equal(pixels, before, equal_nan=True)


def test_channels_are_chosen_in_order():
    pixels, values = draw(), statistics(2)
    pixels[..., 0] = 0  # not chosen, so its pixels have data
    chosen = dict(channels=[3, 1], no_data=0)
    found = NormalizeChannels(**values, **chosen)(dict(img=pixels))['img']
    assert np.array_equal(found, as_in_pretraining(pixels, values, **chosen))
    assert found.all()


def test_grey_images_of_other_loaders_have_two_axes():
    found = NormalizeChannels(mean=[1], std=[2])(dict(img=draw()[..., 0]))['img']
    assert np.array_equal(found[..., 0], (draw()[..., 0] - 1) / np.float32(2))


def test_mmseg_builds_it_after_its_own_loader(tmp_path):
    from mmengine.dataset import Compose
    from mmengine.registry import init_default_scope

    init_default_scope('mmseg')
    values = statistics()
    ChannelStatistics(**values, minimum=[0], maximum=[9], pixels=5, images=1).save(
        tmp_path / 's.json'
    )
    tifffile.imwrite(tmp_path / 'a.tif', draw(), photometric='minisblack')
    pipeline = Compose(
        [
            dict(type='LoadImageFromFile', imdecode_backend='tifffile'),
            dict(
                type='mmmixmim.NormalizeChannels', statistics=str(tmp_path / 's.json')
            ),
            dict(type='PackSegInputs'),
        ]
    )
    found = pipeline(dict(img_path=str(tmp_path / 'a.tif')))['inputs']
    wanted = as_in_pretraining(draw(), values)
    assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted)


def test_what_does_not_fit_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match='no file of channel statistics'):
        NormalizeChannels(str(tmp_path / 'none.json'))
    with pytest.raises(UserError, match='needs statistics, the file'):
        NormalizeChannels()
    with pytest.raises(UserError, match='no_data must be a number'):
        NormalizeChannels(**statistics(), no_data='none')

    def refused(pixels, **options):
        transform = NormalizeChannels(**statistics(), **options)
        with pytest.raises(UnreadableFileError) as error:
            transform(dict(img=pixels, img_path='a.tif'))
        assert "'a.tif'" in str(error.value) and '\n' not in str(error.value)
        return str(error.value)

    assert '4 channels are taken from it' in refused(draw(4))
    assert '32 channels are taken from it' in refused(draw().transpose(2, 0, 1))
    assert 'channels 0 to 4, channels=[5]' in refused(draw(), channels=[5])
    assert 'of the value nan' in refused(np.full((4, 4, 5), np.nan))
