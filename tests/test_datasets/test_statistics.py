import json

import numpy as np
import pytest
import tifffile
from PIL import Image

import mmmixmim.datasets.statistics as statistics
from mmmixmim.datasets import ChannelStatistics, measure_channels
from mmmixmim.datasets.statistics import RunningMoments
from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [
        (rng.random((size, 40, 5)) * 1000 + 20).astype('uint16')
        for size in (30, 50, 41)
    ]


def save(folder, images):
    paths = []
    for i, image in enumerate(images):
        paths.append(folder / f'{i}.tif')
        tifffile.imwrite(paths[-1], image.transpose(2, 0, 1), photometric='minisblack')
    return paths


@pytest.mark.parametrize('chunk', [1, 200, 1 << 20])
def test_figures_are_those_of_all_pixels(tmp_path, monkeypatch, images, chunk):
    """However many rows are read at a time."""
    monkeypatch.setattr(statistics, 'CHUNK', chunk)
    found = measure_channels(save(tmp_path, images))
    pixels = np.concatenate([image.reshape(-1, 5) for image in images]).astype(float)
    assert found.mean == pytest.approx(pixels.mean(0), rel=1e-12)
    assert found.std == pytest.approx(pixels.std(0), rel=1e-12)
    assert found.minimum == pixels.min(0).tolist()
    assert found.maximum == pixels.max(0).tolist()
    assert (found.pixels, found.images) == (len(pixels), 3)


def test_large_values_do_not_cancel():
    """Sums of squares in float64 would give no digit of this deviation."""
    values = np.random.default_rng(0).normal(size=(5000, 1)) * 1e-3 + 1e8
    moments = RunningMoments()
    for part in np.split(values, 50):
        moments.update(part)
    deviation = np.sqrt(moments.squares / moments.count)
    assert deviation == pytest.approx(values.std(0), rel=1e-3)
    naive = (values**2).mean() - values.mean() ** 2
    assert abs(naive) > 100 * values.var()


@pytest.mark.parametrize('kind', ['value', 'mask'])
def test_pixels_without_data_do_not_count(tmp_path, images, kind):
    invalid = np.zeros((30, 40), bool)
    invalid[3:20, 5:30] = True
    images[0][invalid] = 0
    paths = save(tmp_path, images)
    masks = []
    for i, image in enumerate(images):
        mask = np.ones(image.shape[:2], np.uint8)
        mask[: invalid.shape[0]][invalid if i == 0 else np.zeros_like(invalid)] = 0
        masks.append(tmp_path / f'{i}.png')
        Image.fromarray(mask).save(masks[-1])
    options = dict(no_data=0) if kind == 'value' else dict(masks=masks)
    found = measure_channels(paths, **options)
    valid = np.concatenate(
        [images[0][~invalid], *(image.reshape(-1, 5) for image in images[1:])]
    )
    assert found.pixels == len(valid)
    assert found.mean == pytest.approx(valid.mean(0), rel=1e-12)


def test_channels_can_be_chosen(tmp_path, images):
    paths = save(tmp_path, images)
    everything = measure_channels(paths)
    some = measure_channels(paths, channels=[4, 1])
    assert some.mean == [everything.mean[4], everything.mean[1]]
    with pytest.raises(UnreadableFileError, match='has the channels 0 to 4'):
        measure_channels(paths, channels=[5])
    with pytest.raises(UnreadableFileError, match=r'channels=\[-1\] are asked for'):
        measure_channels(paths, channels=[-1])


def test_statistics_are_kept_in_a_file(tmp_path, images):
    found = measure_channels(save(tmp_path, images))
    path = tmp_path / 'run' / 'statistics.json'
    found.save(path)
    assert ChannelStatistics.load(path) == found
    assert json.loads(path.read_text())['mean'] == found.mean
    with pytest.raises(MissingFileError, match='measure_channels'):
        ChannelStatistics.load(tmp_path / 'none.json')
    for text in ('no JSON', '{}', '[1]'):
        path.write_text(text)
        with pytest.raises(UserError, match='holds no channel statistics'):
            ChannelStatistics.load(path)


def test_mixed_channels_are_named(tmp_path, images):
    images[1] = images[1][..., :4]
    with pytest.raises(
        UnreadableFileError, match=r'1\.tif.*4 channels.*0\.tif.* has 5'
    ):
        measure_channels(save(tmp_path, images))


def test_constant_channels_are_named(tmp_path, images):
    for image in images:
        image[..., 2] = 7
    paths = save(tmp_path, images)
    with pytest.raises(UserError, match=r'Channel 2 has the value 7 in all') as error:
        measure_channels(paths)
    assert 'leave it out with channels=[0, 1, 3, 4] in a config ' in str(error.value)
    with pytest.raises(UserError, match=r'Channel 2 has.*channels=\[3\] '):
        measure_channels(paths, channels=[2, 3])
    with pytest.raises(UserError, match=r'Channel 2 has.*: set no_data\.$'):
        measure_channels(paths, channels=[2])


@pytest.mark.parametrize('value', [0.1, 0.3, 2.6])
def test_constant_channels_are_found_whatever_is_rounded(value):
    with pytest.raises(UserError, match=f'Channel 0 has the value {value}'):
        measure_channels([np.full((37, 41), value)] * 3)


def test_images_without_valid_pixels_are_refused(tmp_path):
    paths = save(tmp_path, [np.zeros((9, 70, 3), 'uint16')])
    with pytest.raises(UserError, match='1 images have no valid pixel'):
        measure_channels(paths, no_data=0)


def test_unreadable_images_can_be_skipped(tmp_path):
    for i in range(3):
        np.save(tmp_path / f'{i}.npy', np.random.default_rng(i).random((8, 8, 2)))
    (tmp_path / '1.npy').write_bytes(b'no image')
    files = sorted(tmp_path.glob('*.npy'))
    with pytest.raises(UnreadableFileError, match='1.npy'):
        measure_channels(files)
    # A NaN is no damage.
    np.save(tmp_path / '3.npy', np.full((8, 8, 2), np.nan))
    with pytest.raises(UnreadableFileError, match='3.npy.*the value nan'):
        measure_channels([*files, tmp_path / '3.npy'], skip_unreadable=True)
    found = measure_channels(files, skip_unreadable=True)
    wanted = measure_channels([files[0], files[2]])
    assert found == wanted and found.images == 2


def test_damaged_masks_are_never_skipped(tmp_path, images):
    paths, masks = save(tmp_path, images), []
    for number, image in enumerate(images):
        masks.append(tmp_path / f'mask{number}.png')
        mask = np.random.default_rng(0).integers(1, 255, image.shape[:2], np.uint8)
        Image.fromarray(mask).save(masks[-1])

    def measure():
        return measure_channels(paths, masks=masks, skip_unreadable=True)

    paths[1].write_bytes(b'no image')
    assert measure().images == 2
    whole = masks[2].read_bytes()
    for content in (whole[: len(whole) // 2], b'no image'):
        masks[2].write_bytes(content)
        with pytest.raises(UnreadableFileError, match='mask2.png'):
            measure()
    masks[2].unlink()
    with pytest.raises(MissingFileError, match='mask2.png'):
        measure()


def test_there_are_as_many_masks_as_images(images):
    with pytest.raises(UserError, match='got 1 mask and more images'):
        measure_channels(images, masks=[None])
    with pytest.raises(UserError, match='got 3 images and more masks'):
        measure_channels(images, masks=[None] * 4)
