import itertools
import zipfile

import cv2
import numpy as np
import pydicom
import pytest
import rasterio
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from mmmixmim.datasets.readers import ArrayReader, open_image
from mmmixmim.validation import (
    MissingFileError,
    UnreadableFileError,
    UserError,
)

BOXES = [(3, 5, 20, 30), (0, 0, 1, 1), (83, 91, 7, 9), (17, 33, 70, 50)]


def draw(channels, dtype, size=(90, 100)):
    pixels = np.random.default_rng(0).random((*size, channels))
    return (pixels * 250).astype(dtype)


def check(path, wanted, data=None):
    """Sizes from the header, all pixels, and windows of them."""
    with open_image(path, data=data) as image:
        assert image.size == wanted.shape[:2]
        assert (image.channels, image.dtype) == (wanted.shape[2], wanted.dtype)
        assert np.array_equal(image.read(), wanted)
        for top, left, height, width in BOXES:
            window = wanted[top : top + height, left : left + width]
            assert np.array_equal(image.read((top, left, height, width)), window)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32', 'bool'])
@pytest.mark.parametrize('channels', [1, 3, 64])
def test_reads_numpy_files_of_any_channels(tmp_path, dtype, channels):
    pixels = draw(channels, dtype)
    np.save(tmp_path / 'last.npy', pixels)
    np.save(tmp_path / 'first.npy', pixels.transpose(2, 0, 1))
    np.savez_compressed(tmp_path / 'one.npz', pixels)
    np.savez(tmp_path / 'named.npz', image=pixels, other=np.zeros(3))
    for name in ('last.npy', 'first.npy', 'one.npz', 'named.npz'):
        check(tmp_path / name, pixels)
    data = (tmp_path / 'last.npy').read_bytes()
    check('a/remote.npy', pixels, data)


def test_local_numpy_files_are_mapped(tmp_path):
    np.save(tmp_path / 'a.npy', draw(3, 'uint16'))
    with open_image(tmp_path / 'a.npy') as image:
        assert isinstance(image.read((0, 0, 2, 2)), np.memmap)


LAYOUTS = [
    dict(),
    dict(rowsperstrip=7),
    dict(rowsperstrip=7, compression='zlib'),
    dict(tile=(32, 48)),
    dict(tile=(32, 32), compression='lzw', predictor=3),
    dict(tile=(32, 32), compression='zstd', byteorder='>', bigtiff=True),
]


@pytest.mark.parametrize('layout', LAYOUTS, ids=str)
def test_reads_tiff_of_any_layout(tmp_path, layout):
    """Planar or not, tiled or not, in pages, from disk and from memory."""
    dtype = 'float32' if 'predictor' in layout else 'uint16'
    layout = dict(layout)
    order = {key: layout.pop(key) for key in ('byteorder', 'bigtiff') if key in layout}
    for channels, kind in itertools.product(
        (1, 13), ('contig', 'separate', 'pages', 'series')
    ):
        pixels = draw(channels, dtype)
        first = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        path = tmp_path / 'a.tif'
        with tifffile.TiffWriter(path, **order) as file:
            options = dict(photometric='minisblack', metadata=None) | layout
            if channels == 1:
                file.write(first[0], **options)
            elif kind == 'pages':
                for page in first:
                    file.write(page, contiguous=False, **options)
            elif kind == 'series':
                file.write(first, **options | dict(metadata={}))
            else:
                data = pixels if kind == 'contig' else first
                file.write(data, planarconfig=kind, **options)
        check(path, pixels)
        check('remote.tif', pixels, path.read_bytes())


def test_reads_no_tile_outside_the_window(tmp_path):
    """A damaged tile hurts only boxes that touch it."""
    pixels = draw(1, 'uint16', (256, 256))
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, pixels[..., 0], tile=(64, 64), compression='zlib')
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[5]  # in the second row and column
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b'x' * 20
    path.write_bytes(data)
    with open_image(path) as image:
        assert np.array_equal(image.read((128, 0, 128, 256)), pixels[128:])
        assert np.array_equal(image.read((0, 0, 256, 64)), pixels[:, :64])
        with pytest.raises(UnreadableFileError, match=r"image '.*a\.tif' cannot"):
            image.read((60, 60, 10, 10))


def test_takes_the_full_size_of_a_pyramid(tmp_path):
    pixels = draw(3, 'uint8', (128, 160))
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(pixels, subifds=1, tile=(64, 64), photometric='rgb')
        file.write(pixels[::2, ::2], subfiletype=1, tile=(64, 64), photometric='rgb')
    check(tmp_path / 'a.tif', pixels)


def test_tiles_that_are_not_stored_show_the_no_data_value(tmp_path):
    pixels = np.zeros((64, 64), np.uint16)
    path = tmp_path / 'a.tif'
    with rasterio.open(
        path, 'w', driver='GTiff', height=64, width=64, count=2, dtype='uint16',
        tiled=True, blockxsize=32, blockysize=32, nodata=7, sparse_ok=True,
    ) as file:  # fmt: skip
        pixels[:32, :32] = 5
        file.write(pixels[:32, :32][None].repeat(2, 0), window=((0, 32), (0, 32)))
    with open_image(path) as image:
        assert image.read((0, 0, 1, 1)).tolist() == [[[5, 5]]]
        assert image.read((40, 40, 1, 1)).tolist() == [[[7, 7]]]


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_reads_png_of_16_bits(tmp_path, channels):
    pixels = draw(channels, 'uint16') * 260
    path = tmp_path / 'a.png'
    if channels == 2:
        pytest.importorskip('imagecodecs')
        import imagecodecs

        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
        cv2.imwrite(str(path), pixels[..., order])
    check(path, pixels)
    check('remote.png', pixels, path.read_bytes())


def test_png_of_16_bits_is_decoded_once(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'a.png'), draw(1, 'uint16'))
    decode, calls = cv2.imdecode, []
    monkeypatch.setattr(cv2, 'imdecode', lambda *x: calls.append(x) or decode(*x))
    with open_image(tmp_path / 'a.png') as image:
        for top in range(0, 90, 30):  # as figures of channels are measured
            image.read((top, 0, 30, 100))
    assert len(calls) == 1


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA'])
@pytest.mark.parametrize('ending', ['png', 'webp'])
def test_reads_what_pillow_reads(tmp_path, mode, ending):
    pixels = draw(len(mode), 'uint8')
    image = Image.fromarray(pixels.squeeze(), mode)
    if ending == 'webp':
        mode = 'RGBA' if 'A' in mode else 'RGB'
        image = image.convert(mode)
    image.save(tmp_path / f'a.{ending}', lossless=True, exact=True)
    check(tmp_path / f'a.{ending}', np.asarray(image).reshape(90, 100, -1))


def test_applies_palettes_and_the_orientation_of_exif(tmp_path):
    image = Image.fromarray(draw(3, 'uint8') // 64 * 64).convert('P')
    image.save(tmp_path / 'a.png')
    check(tmp_path / 'a.png', np.asarray(image.convert('RGB')))
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = Image.fromarray(draw(1, 'uint8')[..., 0])
    grey.save(tmp_path / 'a.jpg', exif=exif, quality=100)
    with open_image(tmp_path / 'a.jpg') as image:
        assert image.size == (100, 90) and image.channels == 1
        turned = np.rot90(np.asarray(Image.open(tmp_path / 'a.jpg')), -1)
        assert np.array_equal(image.read()[..., 0], turned)


def test_reads_rasters_by_gdal(tmp_path):
    pixels = draw(13, 'uint16')
    with rasterio.open(
        tmp_path / 'a.img', 'w', driver='ENVI', height=90, width=100, count=13,
        dtype='uint16',
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    check(tmp_path / 'a.img', pixels)
    with pytest.raises(UnreadableFileError, match='local files only'):
        open_image('a.img', data=(tmp_path / 'a.img').read_bytes())


def write_dicom(path, pixels, slope=None):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.2'
    meta.MediaStorageSOPInstanceUID = '1.2.3'
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b'\0' * 128)
    file.Rows, file.Columns = pixels.shape[-2:]
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, 'MONOCHROME2'
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    if pixels.ndim == 3:
        file.NumberOfFrames = len(pixels)
    if slope:
        file.RescaleSlope, file.RescaleIntercept = slope
    file.PixelData = pixels.tobytes()
    file.save_as(path)


def test_dicom_that_is_deflated_as_a_whole_is_refused(tmp_path):
    """pydicom would unpack any size before a header can be checked."""
    path = tmp_path / 'a.dcm'
    write_dicom(path, np.zeros((512, 512), 'int16'))
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    file.save_as(path)
    assert path.stat().st_size < 2000
    for data in (None, path.read_bytes()):
        with pytest.raises(UnreadableFileError, match=r'a\.dcm.* is deflated as a'):
            open_image(path, data=data)


def test_reads_dicom(tmp_path):
    pixels = draw(4, 'int16') - 100
    write_dicom(tmp_path / 'a.dcm', pixels[..., 0].copy())
    check(tmp_path / 'a.dcm', pixels[..., :1])
    frames = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    write_dicom(tmp_path / 'b.dcm', frames, slope=(2, -1024))
    check(tmp_path / 'b.dcm', pixels.astype('float32') * 2 - 1024)
    write_dicom(tmp_path / 'c.dcm', pixels[..., 0].copy(), slope=('', ''))
    check(tmp_path / 'c.dcm', pixels[..., :1])


def rescaling(slope, intercept):
    """A functional group of DICOM with slope and intercept."""
    values, group = Dataset(), Dataset()
    values.RescaleSlope, values.RescaleIntercept = slope, intercept
    group.PixelValueTransformationSequence = [values]
    return group


def test_rescales_the_frames_of_dicom(tmp_path):
    """Slope and intercept of a frame come before those of all frames."""
    path, pixels = tmp_path / 'a.dcm', draw(3, 'int16') - 100
    write_dicom(path, np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    file = pydicom.dcmread(path)
    file.SharedFunctionalGroupsSequence = [rescaling(2, -1024)]
    file.save_as(path)
    check(path, pixels.astype('float32') * 2 - 1024)
    own = [rescaling(1, 0), Dataset(), rescaling(3, 7)]
    file.PerFrameFunctionalGroupsSequence = own
    file.save_as(path)
    wanted = pixels.astype('float32') * [1, 2, 3] + [0, -1024, 7]
    check(path, wanted.astype('float32'))


def test_rescaled_pixels_of_32_bits_are_float32(tmp_path):
    pixels = draw(1, 'uint32')
    write_dicom(tmp_path / 'a.dcm', pixels[..., 0].copy(), slope=(2, 1))
    file = pydicom.dcmread(tmp_path / 'a.dcm')
    file.BitsAllocated = file.BitsStored = 32
    file.HighBit, file.PixelRepresentation = 31, 0
    file.save_as(tmp_path / 'a.dcm')
    check(tmp_path / 'a.dcm', pixels.astype('float32') * 2 + 1)


@pytest.mark.parametrize(
    'ending', ['tif', 'npy', 'npz', 'png', 'dcm', 'jp2', 'jpg', 'xyz']
)
def test_files_that_are_no_images_are_named_in_one_line(tmp_path, ending):
    path = tmp_path / f'a.{ending}'
    path.write_bytes(b'no image')
    with pytest.raises(UnreadableFileError) as error:
        open_image(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


def claim_large_tile(path):
    tifffile.imwrite(path, draw(1, 'uint16', (64, 64)), tile=(64, 64), compression=8)
    with tifffile.TiffFile(path, mode='r+') as file:
        for name in ('ImageWidth', 'ImageLength', 'TileWidth', 'TileLength'):
            file.pages[0].tags[name].overwrite(2**16)


def claim_large_png(path):
    cv2.imwrite(str(path), draw(3, 'uint16', (8, 8)))
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, 'big') * 2
    path.write_bytes(data)


def claim_large_array(path):
    np.savez_compressed(path, draw(1, 'uint8', (8, 8)))
    with zipfile.ZipFile(path, 'a') as file:
        file.filelist[0].file_size = 2**33
        file._didModify = True


def claim_large_scan(path):
    write_dicom(path, draw(1, 'int16', (8, 8))[..., 0].copy())
    file = pydicom.dcmread(path)
    file.Rows = file.Columns = 2**16 - 1
    file.save_as(path)


@pytest.mark.parametrize(
    'name, write',
    [
        ('a.tif', claim_large_tile),
        ('a.png', claim_large_png),
        ('a.npz', claim_large_array),
        ('a.dcm', claim_large_scan),
    ],
)
def test_small_files_that_unpack_to_gigabytes_are_refused(name, write, tmp_path):
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 20_000
    with pytest.raises(UnreadableFileError, match=r'\d GiB.*, more than 4: ') as error:
        with open_image(tmp_path / name) as image:
            image.read((0, 0, 8, 8))
    assert name in str(error.value)


def test_pickled_objects_are_not_loaded(tmp_path):
    for name, data in (('a.npy', [dict(a=1)]), ('b.npz', [{}])):
        array = np.array(data, dtype=object)
        save = np.save if name == 'a.npy' else np.savez
        save(tmp_path / name, array)
        with pytest.raises(UnreadableFileError, match='cannot be read'):
            open_image(tmp_path / name)


@pytest.mark.parametrize(
    'array, message',
    [
        (np.zeros((5, 5, 65, 5)), 'its shape is'),
        (np.zeros((80, 90, 70)), '70 channels, expected 1 to 64'),
        (np.zeros((0, 9, 3)), 'it is empty'),
        (np.zeros((9, 9), np.int64), 'its pixels are int64'),
        (np.zeros((9, 9), np.complex64), 'its pixels are complex64'),
    ],
)
def test_arrays_that_are_no_images_are_refused(array, message):
    with pytest.raises(UserError, match=message):
        ArrayReader(array)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r'no image file .*none\.tif'):
        open_image(tmp_path / 'none.tif')
