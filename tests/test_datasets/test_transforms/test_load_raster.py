import numpy as np
import pytest
import tifffile

from mmmixmim.datasets import LoadRaster
from mmmixmim.validation import MissingFileError, UnreadableFileError


def pixels(channels=5):
    return np.random.default_rng(0).integers(0, 9999, (20, 30, channels), np.uint16)


def test_planar_files_and_arrays_have_channels_last(tmp_path):
    wanted = pixels()
    planes = wanted.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / 'a.tif', planes, planarconfig='separate')
    np.save(tmp_path / 'a.npy', planes)
    for name in ('a.tif', 'a.npy'):
        found = LoadRaster()(dict(img_path=str(tmp_path / name)))
        assert found['img'].dtype == np.uint16
        assert np.array_equal(found['img'], wanted)
        assert found['img_shape'] == found['ori_shape'] == (20, 30)
        assert found['img'].flags.c_contiguous and found['img'].flags.writeable


def test_the_file_is_named_if_it_cannot_be_read(tmp_path):
    with pytest.raises(MissingFileError, match=r"no image file '.*/none\.tif'"):
        LoadRaster()(dict(img_path=str(tmp_path / 'none.tif')))
    (tmp_path / 'bad.tif').write_bytes(b'no image')
    with pytest.raises(UnreadableFileError, match=r"/bad\.tif' cannot be read"):
        LoadRaster()(dict(img_path=str(tmp_path / 'bad.tif')))
