import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from mmpretrain.datasets import PackInputs
from PIL import Image

from mmmixmim.datasets import unreadable_images
from mmmixmim.registry import DATASETS, TRANSFORMS
from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError


def build(**kwargs):
    return TRANSFORMS.build(dict(type='LoadRasterCrop', scale=32) | kwargs)


def draw(channels=13, dtype='uint16', size=(60, 80)):
    pixels = np.random.default_rng(0).random((*size, channels))
    return (pixels * 250).astype(dtype) + np.ones((), dtype)


def run(transform, seed=0, **results):
    np.random.seed(seed)
    return transform(dict(results))


@pytest.mark.parametrize('seed', range(4))
def test_crops_are_those_of_the_rgb_loader(tmp_path, seed):
    """The same draws, and the same pixels up to Pillow's rounding, in RGB."""
    path = tmp_path / 'a.png'
    smooth = Image.fromarray(draw(3, 'uint8', (6, 8))).resize((80, 60))
    smooth.save(path)
    wanted = run(
        TRANSFORMS.build(dict(type='LoadRandomResizedCrop', scale=32, flip_prob=0.5)),
        seed,
        img_path=str(path),
    )
    found = run(build(flip_prob=0.5), seed, img_path=str(path))
    assert found['img'].dtype == np.uint8 and found['img'].shape == (32, 32, 3)
    difference = found['img'][..., ::-1].astype(int) - wanted['img']
    assert np.abs(difference).max() <= 2
    for key in ('img_shape', 'ori_shape', 'flip', 'flip_direction'):
        assert found[key] == wanted[key]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_values_keep_their_scale(tmp_path, dtype, interpolation):
    """Nothing is scaled, clipped or reordered, whatever the type."""
    pixels = draw(5, dtype)
    np.save(tmp_path / 'a.npy', pixels)
    transform = build(
        crop_ratio_range=(1, 1), aspect_ratio_range=(4 / 3, 4 / 3),
        interpolation=interpolation,
    )  # fmt: skip
    found = run(transform, img_path=str(tmp_path / 'a.npy'))['img']
    whole = torch.from_numpy(pixels.astype('float32')).permute(2, 0, 1)[None]
    wanted = F.interpolate(whole, (32, 32), mode=interpolation, antialias=True)
    wanted = wanted[0].permute(1, 2, 0).numpy()
    if dtype == 'uint8':
        assert found.dtype == np.uint8
        assert np.abs(found - wanted.round()).max() <= 1
    else:
        assert found.dtype == np.float32 and np.array_equal(found, wanted)


def test_arrays_in_memory_need_no_file():
    pixels = draw(4, 'float32')
    found = run(build(), img=pixels)
    again = run(build(), img=pixels.transpose(2, 0, 1))
    assert found['img'].shape == (32, 32, 4)
    assert np.array_equal(found['img'], again['img'])


def test_flips_go_both_ways():
    pixels = draw(2)
    plain = run(build(), img=pixels)['img']
    both = run(build(flip_prob=1, vertical_flip_prob=1), img=pixels)
    assert both['flip'] and both['flip_direction'] == 'diagonal'
    assert np.array_equal(both['img'], plain[::-1, ::-1])
    upside = run(build(vertical_flip_prob=1), img=pixels)
    assert upside['flip_direction'] == 'vertical'
    assert np.array_equal(upside['img'], plain[::-1])


def test_channels_are_chosen_in_order():
    pixels = draw(13)
    everything = run(build(), img=pixels)['img']
    some = run(build(channels=[3, 2, 1]), img=pixels)['img']
    assert np.array_equal(some, everything[..., [3, 2, 1]])


@pytest.mark.parametrize('kind', ['value', 'nan', 'mask', 'file'])
def test_pixels_without_data_have_no_influence(tmp_path, kind):
    """Not on their neighbours in the resized crop, and not on the weights."""
    pixels = draw(3, 'float32')
    invalid = np.zeros(pixels.shape[:2], bool)
    invalid[20:50, 10:60] = True
    crops = []
    for junk in (-7.0, 1e6, np.nan):
        image = pixels.copy()
        options, results = {}, {}
        if kind == 'value':
            image[invalid] = -999
            image[invalid, 1:] = junk  # one channel without data is enough
            options = dict(no_data=-999)
        elif kind == 'nan':
            image[invalid] = np.nan
            options = dict(no_data='nan')
        elif kind == 'mask':
            image[invalid] = junk
            results = dict(mask=~invalid)
        else:
            image[invalid] = junk
            Image.fromarray(~invalid).save(tmp_path / 'mask.png')
            results = dict(mask_path=str(tmp_path / 'mask.png'))
        crops.append(run(build(**options), 3, img=image, **results))
    first = crops[0]
    weight = first['pixel_weight'].numpy()
    assert weight.shape == (32, 32) and weight.dtype == np.float32
    assert 0 < (weight == 0).mean() < 1 and weight.max() == pytest.approx(1)
    assert np.array_equal(np.isnan(first['img']).any(-1), weight == 0)
    kept = first['img'][weight > 0]
    assert -50 < kept.min() and kept.max() < 300
    for crop in crops[1:]:
        assert np.array_equal(crop['img'], first['img'], equal_nan=True)
        assert torch.equal(crop['pixel_weight'], first['pixel_weight'])


def test_weights_are_cropped_resized_and_flipped_with_the_image():
    rows = np.linspace(0.1, 1, 60, dtype='float32')[:, None].repeat(80, 1)
    options = dict(flip_prob=1, vertical_flip_prob=1, interpolation='bilinear')
    found = run(build(**options), 5, img=rows[..., None], mask=rows)
    weight = found['pixel_weight'].numpy()
    assert np.allclose(weight, found['img'][..., 0], atol=1e-5)
    assert weight[0, 0] > weight[-1, 0]
    flipped = run(build(interpolation='bilinear'), 5, img=rows[..., None], mask=rows)
    assert np.array_equal(weight[::-1, ::-1], flipped['pixel_weight'])


@pytest.mark.parametrize('seed', range(5))
def test_large_images_are_read_by_windows(tmp_path, seed):
    """No crop is longer than max_crop; together they come from everywhere."""
    rows, columns = np.mgrid[:500, :700].astype('float32')
    np.save(tmp_path / 'a.npy', np.stack([rows, columns], -1))
    transform = build(max_crop=64, crop_ratio_range=(0.5, 1))
    corners = []
    for i in range(40):
        crop = run(transform, 40 * seed + i, img_path=str(tmp_path / 'a.npy'))['img']
        extent = crop.max((0, 1)) - crop.min((0, 1))
        assert (extent < 66).all() and (extent > 35).all()
        corners.append(crop.min((0, 1)))
    assert (np.ptp(corners, axis=0) > (300, 450)).all()


def test_small_images_are_their_own_window():
    """The draws are those without max_crop."""
    found = run(build(max_crop=80), 3, img=draw(2))['img']
    assert np.array_equal(found, run(build(), 3, img=draw(2))['img'])


def test_central_square_for_testing():
    image = np.arange(80.0, dtype='float32')[None].repeat(60, 0)
    transform = build(crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1))
    crops = [run(transform, seed, img=image)['img'] for seed in range(3)]
    assert all(np.array_equal(crop, crops[0]) for crop in crops)
    assert 10 <= crops[0].min() < 11.5 and 67.5 < crops[0].max() <= 69


def test_held_out_windows_are_not_drawn():
    transform = build(max_attempts=0, max_crop=40, aspect_ratio_range=(1, 1))
    pixels = draw(2, 'float32', (160, 120))
    found = [run(transform, seed, img=pixels)['img'] for seed in range(3)]
    middle = torch.from_numpy(pixels[60:100, 40:80]).permute(2, 0, 1)[None]
    wanted = F.interpolate(middle, (32, 32), mode='bicubic', antialias=True)[0]
    for each in found:
        np.testing.assert_allclose(each, wanted.permute(1, 2, 0), rtol=1e-6)


def test_crop_without_valid_pixels_is_drawn_again():
    image = np.full((60, 80, 2), -1, 'float32')
    image[:6, :6] = 5
    transform = build(no_data=-1, crop_ratio_range=(0.02, 0.1))
    for seed in range(20):
        weight = run(transform, seed, img=image)['pixel_weight']
        assert weight.max() > 0


def test_image_without_valid_pixels_is_refused():
    with pytest.raises(UnreadableFileError, match='too few valid pixels'):
        run(build(no_data=0), img=np.zeros((40, 40, 2), 'uint8'))
    transform = build(no_data=0, ignore_empty=True)
    assert run(transform, img=np.zeros((40, 40, 2), 'uint8')) is None
    half = np.zeros((40, 40), 'uint8')
    half[:10] = 1
    with pytest.raises(UnreadableFileError, match=r'min_valid=0\.9'):
        run(build(no_data=0, min_valid=0.9), img=half)


def test_weights_are_given_whether_or_not_a_crop_has_invalid_pixels():
    """A batch must agree."""
    found = run(build(no_data=-1), img=draw(2, 'uint8').astype('int16'))
    assert torch.equal(found['pixel_weight'], torch.ones(32, 32))
    assert found['img'].dtype == np.float32
    packed = PackInputs(algorithm_keys=('pixel_weight',))(found)
    assert torch.equal(packed['data_samples'].pixel_weight, torch.ones(32, 32))


def test_the_value_that_an_error_names_is_taken():
    pixels = draw(1, 'float32')
    pixels[:30] = np.finfo('f4').min
    found = run(build(no_data='-3.4028234663852886e+38'), img=pixels)
    assert found['img'][found['pixel_weight'] > 0].min() > 0


def test_a_mask_in_memory_is_not_packed():
    mask = np.ones((60, 80), '>i2')
    found = run(build(), img=draw(2), mask=mask)
    assert 'mask' not in found and 'pixel_weight' in found


@pytest.mark.parametrize(
    'options, image, message',
    [
        ({}, np.full((40, 40, 2), np.nan), 'the value nan,.*no_data="nan"'),
        (dict(no_data=3), np.full((40, 40), np.inf), 'the value inf'),
        # What GDAL fills rasters with.
        (
            {},
            np.full((40, 40), np.finfo('f4').min),
            r'no_data="-3\.4028234663852886e\+38"',
        ),
        (dict(no_data=0), np.full((40, 40), np.finfo('f8').min), r'no_data="-1\.79'),
        (dict(num_channels=12), draw(13), 'has 13 channels, expected 12'),
        (dict(channels=[0, 13]), draw(13), 'has the channels 0 to 12'),
    ],
)
def test_unexpected_pixels_are_one_clear_line(options, image, message):
    with pytest.raises(UnreadableFileError, match=message):
        run(build(**options), img=image)


@pytest.mark.parametrize(
    'mask, message',
    [
        (np.ones((60, 79)), 'mask has 60x79 pixels and 1 channels, expected 60x80'),
        (np.full((60, 80), -1.0), 'weights in its mask are not all finite'),
        (np.full((60, 80), np.nan), 'weights in its mask are not all finite'),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises(UnreadableFileError, match=message):
        run(build(), img=draw(3), mask=mask)


@pytest.mark.parametrize(
    'options',
    [
        dict(no_data='none'),
        dict(vertical_flip_prob=2),
        dict(min_valid=-1),
        dict(flip_prob=-1),
    ],
)
def test_arguments_out_of_range_are_refused(options):
    with pytest.raises(UserError):
        build(**options)


def test_file_that_cannot_be_read_is_named_or_skipped(tmp_path):
    (tmp_path / 'a.tif').write_bytes(b'no image')
    with pytest.raises(UnreadableFileError, match=r'a\.tif.*ignore_empty'):
        run(build(), img_path=str(tmp_path / 'a.tif'))
    assert run(build(ignore_empty=True), img_path=str(tmp_path / 'a.tif')) is None
    with pytest.raises(UserError, match=r'no image file .*none\.tif'):
        run(build(), img_path=str(tmp_path / 'none.tif'))


def test_a_record_names_a_scene_without_data_once(tmp_path):
    path = str(tmp_path / 'a.npy')
    np.save(path, np.zeros((40, 40), 'uint8'))
    record = unreadable_images()
    start = record.watch()
    assert run(build(no_data=0, ignore_empty=True), img_path=path) is None
    record.leave()
    (((name, reason),), _) = record.since(start)
    assert name == path and path not in reason and not reason.endswith('.')


def test_encoded_bytes_need_no_file(tmp_path):
    tifffile.imwrite(tmp_path / 'a.tif', draw(1)[..., 0])
    data = (tmp_path / 'a.tif').read_bytes()
    found = run(build(), img_path='shard.tar/a.tif', img_bytes=data)
    wanted = run(build(), img_path=str(tmp_path / 'a.tif'))
    assert np.array_equal(found['img'], wanted['img'])


def test_folder_has_masks_of_the_same_names(tmp_path):
    (tmp_path / 'images' / 'deep').mkdir(parents=True)
    (tmp_path / 'masks' / 'deep').mkdir(parents=True)
    for name in ('a', 'deep/b.c'):
        np.save(tmp_path / 'images' / f'{name}.npy', draw(2))
        mask = np.zeros((60, 80), np.uint8)
        mask[:, :40] = 255
        Image.fromarray(mask).save(tmp_path / 'masks' / f'{name}_mask.png')
    dataset = DATASETS.build(
        dict(
            type='RasterFolder',
            data_root=str(tmp_path / 'images'),
            mask_root=str(tmp_path / 'masks'),
            mask_suffix='_mask.png',
            pipeline=[build(crop_ratio_range=(1, 1))],
        )
    )
    assert len(dataset) == 2
    for sample in dataset:
        assert sample['pixel_weight'].mean() == pytest.approx(0.5, abs=0.1)
    with pytest.raises(MissingFileError, match='no folder of masks'):
        DATASETS.build(
            dict(type='RasterFolder', data_root=str(tmp_path), mask_root='nowhere')
        )
