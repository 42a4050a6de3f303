import numpy as np
import pytest
import torch

from mmmixmim.datasets import ChannelStatistics
from mmmixmim.models import RasterClsDataPreprocessor, RasterDataPreprocessor
from mmmixmim.registry import MODELS
from mmmixmim.validation import MissingFileError, UserError


def build(**kwargs):
    return MODELS.build(dict(type='RasterDataPreprocessor', **kwargs))


def normalise(preprocessor, images):
    return preprocessor(dict(inputs=images, data_samples=None))['inputs']


@pytest.mark.parametrize('channels', [1, 2, 3, 13])
def test_normalises_any_channels(channels):
    images = torch.rand(2, channels, 4, 5) * 1000
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
    found = normalise(build(mean=mean.tolist(), std=std.tolist()), images)
    assert torch.allclose(found.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5)
    assert torch.allclose(found.std((0, 2, 3)), torch.ones(channels), atol=1e-5)


def test_is_the_stock_class_for_rgb():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    options = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    stock = MODELS.build(dict(type='SelfSupDataPreprocessor', **options))
    assert torch.equal(normalise(build(**options), images), normalise(stock, images))


def test_pixels_without_data_become_zero():
    images = torch.full((1, 2, 3, 3), 9.0)
    images[0, :, 1, 1] = torch.nan
    found = normalise(build(mean=[5.0, 5.0], std=[2.0, 2.0]), images)
    assert (found[0, :, 1, 1] == 0).all() and (found == 2).sum() == 16


@pytest.mark.parametrize(
    'preprocessor', [RasterDataPreprocessor, RasterClsDataPreprocessor]
)
def test_reads_the_file_of_statistics(tmp_path, preprocessor):
    path = str(tmp_path / 's.json')
    ChannelStatistics([1.0, 2.0], [3.0, 4.0], [0, 0], [9, 9], 5, 1).save(path)
    found = preprocessor(statistics=path)
    assert found.mean.flatten().tolist() == [1, 2]
    assert found.std.flatten().tolist() == [3, 4]
    with pytest.raises(UserError, match='given by statistics and again'):
        preprocessor(statistics=path, mean=[1.0, 2.0], std=[1.0, 1.0])
    with pytest.raises(MissingFileError, match='measure_channels'):
        preprocessor(statistics=str(tmp_path / 'none.json'))


def test_what_does_not_fit_is_refused():
    for options in (
        dict(mean=[1.0]),
        dict(mean=[1.0], std=[1.0, 2.0]),
        dict(mean=[1.0], std=[0.0]),
        dict(mean=[1.0] * 3, std=[1.0] * 3, to_rgb=True),
    ):
        with pytest.raises(UserError):
            RasterDataPreprocessor(**options)
    preprocessor = build(mean=[1.0] * 4, std=[1.0] * 4)
    with pytest.raises(UserError, match='images have 3 channels.* preprocessor 4'):
        normalise(preprocessor, torch.rand(1, 3, 4, 4))


def test_a_classifier_refuses_the_same():
    for options in (
        dict(mean=[1.0]),
        dict(mean=[1.0], std=[1.0, 2.0]),
        dict(mean=[], std=[]),
        dict(mean=1.0, std=1.0),
        dict(mean=[1.0], std=[0.0]),
    ):
        with pytest.raises(UserError, match='mean and std need|std must be positive'):
            RasterClsDataPreprocessor(**options)
    preprocessor = RasterClsDataPreprocessor(mean=np.ones(4), std=np.ones(4))
    for images in (torch.rand(2, 3, 4, 4), list(torch.rand(2, 3, 4, 4).byte())):
        with pytest.raises(UserError, match='images have 3 channels.* preprocessor 4'):
            preprocessor(dict(inputs=images))
