import io
import os

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import MMLogger
from mmpretrain.datasets import RandomResizedCrop
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from mmmixmim.datasets import unreadable_images
from mmmixmim.datasets.transforms import encoded_image
from mmmixmim.datasets.transforms.encoded_image import EncodedImage
from mmmixmim.registry import DATASETS, TRANSFORMS
from mmmixmim.validation import UnreadableFileError, UserError


def build(**kwargs):
    return TRANSFORMS.build(dict(type='LoadRandomResizedCrop', scale=64) | kwargs)


def photo(size=(500, 375)):
    return Image.fromarray(load_sample_image('flower.jpg')).resize(size)


def save(path, image, **kwargs):
    image.save(path, **kwargs)
    return dict(img_path=str(path))


def plain(path, box, size=(64, 64), resampling=Image.Resampling.BICUBIC):
    """Decode, crop and resize with Pillow alone."""
    image = ImageOps.exif_transpose(Image.open(path)).convert('RGB')
    top, left, height, width = box
    crop = image.crop((left, top, left + width, top + height))
    return np.asarray(crop.resize(size[::-1], resampling))


def pixels(image):
    """All pixels (H, W, 3) of an encoded image."""
    out = image.resized_crop((0, 0, *image.size), image.size)
    assert out.dtype == torch.uint8
    return out.permute(1, 2, 0).numpy()


def drawn_box(transform, seed, size):
    np.random.seed(seed)
    return transform.rand_crop_params(np.empty((*size, 0)))


def transformed(transform, results, seed=0):
    np.random.seed(seed)
    return transform(dict(results))


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize(
    'name, kwargs',
    [('a.jpg', dict(quality=90)), ('a.png', {}), ('a.webp', dict(lossless=True))],
)
def test_pixels_of_plain_decoding(tmp_path, name, kwargs, seed):
    """JPEGs are close to those of Pillow alone, other files are equal."""
    results = save(tmp_path / name, photo(), **kwargs)
    transform = build(scale=(64, 48), reducing_gap=None)
    box = drawn_box(transform, seed, (375, 500))
    out = transformed(transform, results, seed)
    assert out['img'].shape == (64, 48, 3) and out['img_shape'] == (64, 48)
    wanted = plain(results['img_path'], box, (64, 48))
    error = np.abs(out['img'][..., ::-1].astype(int) - wanted)
    assert error.max() <= (8 if name == 'a.jpg' else 0) and error.mean() < 0.2


def test_pillow_decodes_where_torchvision_does_not(tmp_path, monkeypatch):
    results = save(tmp_path / 'a.jpg', photo())
    transform = build(reducing_gap=None)
    monkeypatch.setattr(encoded_image, 'decode_jpeg', None)
    image = transformed(transform, results)['img'][..., ::-1]
    box = drawn_box(transform, 0, (375, 500))
    assert np.array_equal(image, plain(results['img_path'], box))


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_bilinear_interpolation(tmp_path, name):
    results = save(tmp_path / name, photo())
    transform = build(reducing_gap=None, interpolation='bilinear')
    box = drawn_box(transform, 0, (375, 500))
    image = transformed(transform, results)['img'][..., ::-1].astype(int)
    bilinear, bicubic = (
        np.abs(image - plain(results['img_path'], box, resampling=each)).mean()
        for each in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    )
    assert bilinear < 0.2 < bicubic


@pytest.mark.parametrize('reduction', [2, 4, 8])
@pytest.mark.parametrize('size', [(1600, 400), (400, 1600), (333, 517)])
def test_jpeg_is_decoded_at_reduced_size(reduction, size):
    """The pixels are those of Pillow's reduced JPEG, not of the full one."""
    file = io.BytesIO()
    photo(size).save(file, 'JPEG')
    image = EncodedImage(file.getvalue())
    small = tuple(-(-side // reduction) for side in image.size)
    out = image.resized_crop((0, 0, *image.size), small, reduction=reduction)
    wanted = Image.open(file)
    wanted.draft(None, tuple(side // reduction for side in size))
    assert wanted.size == small[::-1]
    assert np.array_equal(out.permute(1, 2, 0).numpy(), np.asarray(wanted))


@pytest.mark.parametrize('side', [897, 899, 901, 1003, 1793])
@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_reduced_crop_has_no_dark_edge(reduction, side):
    """Rounding must not reach behind the last pixels of a white image."""
    file = io.BytesIO()
    Image.new('RGB', (side, side), 'white').save(file, 'JPEG')
    image = EncodedImage(file.getvalue())
    out = image.resized_crop((0, 0, side, side), (112, 112), reduction=reduction)
    assert out.min() == 255


def test_reduced_crop_excludes_pixels_outside_the_box():
    """A white box on black at odd edges, which the reduced pixels straddle."""
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[40:360, 80:560] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'JPEG', quality=100)
    image = EncodedImage(file.getvalue())
    inside = image.resized_crop((48, 88, 304, 464), (32, 32), reduction=4)
    assert inside.min() >= 250
    edge = image.resized_crop((32, 72, 16, 16), (2, 2), reduction=4)
    assert (edge[0] > 128).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize('seed', range(8))
def test_pixels_of_reduced_decoding(tmp_path, seed):
    results = save(tmp_path / 'large.jpg', photo((1600, 1200)), quality=90)
    transform = build(crop_ratio_range=(0.2, 1.0))
    box = drawn_box(transform, seed, (1200, 1600))
    assert transform._reduction(box) > 1
    image = transformed(transform, results, seed)['img']
    error = np.abs(image[..., ::-1].astype(int) - plain(results['img_path'], box))
    assert error.mean() < 1 and np.quantile(error, 0.99) <= 5


def test_reduction_respects_the_gap():
    transform = build(scale=(100, 50), reducing_gap=2.0)
    sides = [(399, 999), (400, 200), (800, 400), (9000, 799), (1600, 800), (1599, 800)]
    found = [transform._reduction((0, 0, *side)) for side in sides]
    assert found == [1, 2, 4, 4, 8, 4]
    assert build(reducing_gap=1)._reduction((0, 0, 128, 128)) == 2
    assert build()._reduction((0, 0, 256, 256)) == 2
    assert build()._reduction((0, 0, 255, 256)) == 1
    assert build(reducing_gap=None)._reduction((0, 0, 9000, 9000)) == 1


def test_reduced_jpeg_follows_its_orientation(tmp_path):
    image = photo((1600, 1200))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    results = save(tmp_path / 'turned.jpg', image, exif=exif, quality=90)
    transform = build(crop_ratio_range=(0.5, 1.0))
    box = drawn_box(transform, 3, (1600, 1200))
    out = transformed(transform, results, 3)
    assert out['ori_shape'] == (1600, 1200) and transform._reduction(box) > 1
    error = np.abs(out['img'][..., ::-1].astype(int) - plain(results['img_path'], box))
    assert error.mean() < 1


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    'name, block', [('a.jpg', 'exif'), ('a.jpg', 'xmp'), ('a.png', 'exif')]
)
def test_orientation(tmp_path, orientation, name, block):
    exif, xmp = Image.Exif(), f'<x tiff:Orientation="{orientation}"/>'
    exif[0x0112] = orientation
    path = tmp_path / name
    photo((60, 40)).save(path, **{block: exif if block == 'exif' else xmp.encode()})
    image = EncodedImage(path.read_bytes())
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert image.size == wanted.shape[:2]
    assert np.array_equal(pixels(image), wanted)


@pytest.mark.parametrize(
    'kind, mode',
    [
        *[('JPEG', mode) for mode in ('L', 'RGB', 'CMYK', 'YCbCr')],
        *[('PNG', mode) for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')],
        *[('TIFF', mode) for mode in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK')],
        *[('WEBP', mode) for mode in ('L', 'RGB', 'RGBA')],
        *[('BMP', mode) for mode in ('1', 'L', 'P', 'RGB', 'RGBA')],
    ],
)
def test_modes(kind, mode):
    file = io.BytesIO()
    photo((50, 40)).convert(mode).save(file, kind)
    wanted = np.asarray(Image.open(file).convert('RGB'))
    assert np.array_equal(pixels(EncodedImage(file.getvalue())), wanted)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_sixteen_bits_keep_the_upper_eight(kind):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    out = pixels(EncodedImage(file.getvalue()))
    assert all(np.array_equal(out[..., i], values >> 8) for i in range(3))


@pytest.mark.parametrize('ending', ['.png', '.tiff'])
def test_sixteen_bit_colours(ending):
    values = np.random.default_rng(0).integers(0, 65536, (8, 9, 3), dtype=np.uint16)
    data = cv2.imencode(ending, values)[1].tobytes()
    assert np.array_equal(pixels(EncodedImage(data))[..., ::-1], values >> 8)


@pytest.mark.parametrize('kind', ['MPO', 'GIF', 'TIFF', 'WEBP'])
def test_first_of_several_images(kind):
    file = io.BytesIO()
    first = photo((50, 40))
    first.save(file, kind, save_all=True, append_images=[photo((50, 40)).rotate(180)])
    wanted = Image.open(file).convert('RGB')
    assert np.array_equal(pixels(EncodedImage(file.getvalue())), wanted)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('transparency', [0, bytes(range(0, 256, 32))])
def test_palette_with_transparency(transparency):
    image = photo((50, 40)).quantize(8)
    file = io.BytesIO()
    image.save(file, 'PNG', transparency=transparency)
    out = pixels(EncodedImage(file.getvalue()))
    assert np.array_equal(out, image.convert('RGB'))


def test_crops_are_those_of_mmpretrain(tmp_path):
    """The same random numbers give the same boxes."""
    results = save(tmp_path / 'a.jpg', photo())
    kwargs = dict(scale=64, crop_ratio_range=(0.2, 1.0), aspect_ratio_range=(0.5, 2.0))
    ours = build(**kwargs, reducing_gap=None)
    theirs = RandomResizedCrop(**kwargs, backend='pillow', interpolation='bicubic')
    image = np.asarray(Image.open(results['img_path']))
    for seed in range(10):
        np.random.seed(seed)
        wanted = theirs(dict(img=image))['img'].astype(int)
        image_of_ours = transformed(ours, results, seed)['img'][..., ::-1]
        error = np.abs(image_of_ours - wanted)
        assert error.max() <= 8 and error.mean() < 0.2


def test_crop_options_and_defaults_are_those_of_mmpretrain():
    kwargs = dict(crop_ratio_range=(0.9, 1.0), aspect_ratio_range=(5, 6))
    for given in ({}, kwargs, dict(kwargs, max_attempts=3)):
        ours = build(**given)
        theirs = RandomResizedCrop(64, **given)
        for seed in range(20):
            np.random.seed(seed)
            wanted = theirs.rand_crop_params(np.empty((300, 400, 0))), np.random.rand()
            found = drawn_box(ours, seed, (300, 400)), np.random.rand()
            assert found == wanted


def test_several_images_can_share_crop_and_flip(tmp_path):
    path = save(tmp_path / 'a.png', photo())['img_path']
    broadcaster = TRANSFORMS.build(
        dict(
            type='TransformBroadcaster',
            transforms=[build(flip_prob=0.5)],
            mapping=dict(img_path='paths'),
            remapping=dict(img='images'),
            share_random_params=True,
        )
    )
    first, *others = broadcaster(dict(paths=[path] * 8))['images']
    assert all(np.array_equal(first, other) for other in others)


class PrefixedBackend(LocalBackend):
    """Local files whose names get a prefix."""

    def __init__(self, prefix):
        self.prefix = prefix

    def get(self, filepath):
        return super().get(self.prefix + filepath)


def test_files_come_from_the_backend_of_mmengine(tmp_path):
    register_backend('prefixed', PrefixedBackend, force=True)
    save(tmp_path / 'a.png', photo())
    arguments = dict(backend='prefixed', prefix=f'{tmp_path}/')
    out = build(backend_args=arguments)(dict(img_path='a.png'))
    assert out['ori_shape'] == (375, 500)


def test_flip(tmp_path):
    results = save(tmp_path / 'a.png', photo())
    plain, flipped = (
        transformed(build(flip_prob=prob, crop_ratio_range=(1, 1)), results)
        for prob in (0.0, 1.0)
    )
    assert np.array_equal(plain['img'][:, ::-1], flipped['img'])
    assert (plain['flip'], plain['flip_direction']) == (False, None)
    assert (flipped['flip'], flipped['flip_direction']) == (True, 'horizontal')
    transform = build(flip_prob=0.3)
    np.random.seed(0)
    assert 270 < sum(transform.rand_flip() for _ in range(1000)) < 330


def test_goes_through_a_dataset_to_a_batch(image_folder):
    pipeline = [
        dict(type='mmmixmim.LoadRandomResizedCrop', scale=32, flip_prob=0.5),
        dict(type='PackInputs'),
    ]
    dataset = DATASETS.build(
        dict(type='ImageFolder', data_root=str(image_folder), pipeline=pipeline)
    )
    samples = list(dataset)
    batch = default_collate(samples)
    assert batch['inputs'].shape == (5, 3, 32, 32)
    assert batch['inputs'].dtype == torch.uint8
    sample = samples[0]['data_samples']
    assert sample.img_shape == (32, 32) and sample.ori_shape == (70, 90)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'it is empty'),
        (b'not an image', 'no image in a supported format'),
        ('cut.jpg', ''),
        ('cut.png', ''),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / (content if isinstance(content, str) else 'a.jpg')
    if isinstance(content, str):
        photo().save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    results = dict(img_path=str(path))
    with pytest.raises(
        UnreadableFileError, match=f'{path}.*cannot be read.*{message}.*ignore_empty'
    ) as error:
        build()(results)
    assert '--cfg-options' not in str(error.value)  # mixmim has none
    log = tmp_path / 'log'
    MMLogger.get_instance(str(tmp_path), log_file=str(log))
    unreadable_images().leave()  # a training that failed in this process
    assert build(ignore_empty=True)(results) is None
    assert f'The image {path} cannot be read' in log.read_text()


def test_missing_file(tmp_path):
    with pytest.raises(OSError, match='nowhere.jpg.*cannot be read'):
        build()(dict(img_path=str(tmp_path / 'nowhere.jpg')))


def test_pipes_and_devices_are_no_images(tmp_path):
    os.mkfifo(tmp_path / 'a.jpg')
    for path in (tmp_path / 'a.jpg', '/dev/zero'):
        with pytest.raises(UnreadableFileError, match=f"'{path}' .* no regular file"):
            build()(dict(img_path=str(path)))


@pytest.mark.parametrize(
    'values, message',
    [
        (np.float32([[0.5]]), 'pixels are float32, expected 8-bit or 16-bit'),
        (np.int32([[70000]]), 'from 70000 to 70000, expected 0 to 65535'),
        (np.int32([[65536]]), 'from 65536 to 65536, expected 0 to 65535'),
        (np.int32([[-1]]), 'from -1 to -1, expected 0 to 65535'),
    ],
)
def test_unsupported_pixel_types_are_refused(tmp_path, values, message):
    results = save(tmp_path / 'a.tiff', Image.fromarray(values))
    with pytest.raises(UnreadableFileError, match=message):
        build()(results)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(interpolation='lanczos'), "must be 'bicubic' or .* got 'lanczos'"),
        (dict(flip_prob=1.5), 'from 0 to 1, got 1.5'),
        (dict(flip_prob=-0.1), 'from 0 to 1, got -0.1'),
        (dict(reducing_gap=0.5), 'at least 1 or None, got 0.5'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(UserError, match=message):
        build(**kwargs)


def test_damaged_exif_does_no_harm(tmp_path):
    """The image is decoded in its size, or is unreadable."""
    rng = np.random.default_rng(0)
    transform = build(ignore_empty=True)
    image, decoded = photo((90, 70)), 0
    for number in range(100):
        start = (b'', b'Exif\0\0', b'Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01')
        block = start[number % 3] + rng.bytes(int(rng.integers(1, 200)))
        results = save(tmp_path / 'a.jpg', image, exif=block)
        out = transform(results)
        if out is not None:
            assert out['img'].shape == (64, 64, 3)
            assert out['ori_shape'] in ((70, 90), (90, 70))
            decoded += 1
    assert decoded > 50


@pytest.mark.parametrize('name', ['a.eps', 'a.pcx', 'a.tga', 'a.sgi'])
def test_formats_that_nobody_asked_for_are_not_decoded(tmp_path, name):
    """Pillow knows them by their content, and runs Ghostscript on EPS."""
    photo().save(tmp_path / name)
    assert Image.open(tmp_path / name).size == (500, 375)
    with pytest.raises(UnreadableFileError, match='no image in a supported format'):
        EncodedImage((tmp_path / name).read_bytes())


@pytest.mark.parametrize('limit', [1, None])
def test_size_is_limited_before_decoding(monkeypatch, limit):
    """Whatever Pillow's own limit is."""
    data = io.BytesIO()
    Image.new('1', (14_000, 14_000)).save(data, 'PNG')
    assert len(data.getvalue()) < 100_000
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
    with pytest.raises(UnreadableFileError, match='more than 178,956,970 pixels'):
        EncodedImage(data.getvalue())
