"""What a scan finds in a folder of images."""

import os
import shutil
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import mmmixmim.datasets.scan as scan_module
from mmmixmim.datasets.image_files import find_images
from mmmixmim.datasets.scan import (
    Scan,
    check_scan,
    read_header,
    scan_dataset,
    scan_images,
    scan_shards,
)
from mmmixmim.validation import MissingDependencyError, UserError


def scanned(folder) -> Scan:
    return scan_images(folder, find_images(folder))


def noise(seed: int, *size: int, dtype=np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, size, dtype=dtype)


def test_formats_sizes_channels_and_problems_are_counted(tmp_path):
    (tmp_path / 'deep').mkdir()
    Image.fromarray(noise(0, 30, 50, 3)).save(tmp_path / 'a.jpg')
    Image.fromarray(noise(1, 40, 20)).save(tmp_path / 'b.png')
    Image.fromarray(noise(2, 60, 90, 4)).save(tmp_path / 'deep' / 'c.png')
    Image.new('L', (64, 64), 7).save(tmp_path / 'deep' / 'grey.tif')
    (tmp_path / 'copy.jpg').write_bytes((tmp_path / 'a.jpg').read_bytes())
    (tmp_path / 'broken.png').write_bytes(b'no image')
    (tmp_path / 'notes.txt').write_text('no image')
    scan = scanned(tmp_path)
    assert scan.images == 5 and scan.unreadable == 1
    assert scan.formats == dict(JPEG=2, PNG=2, TIFF=1)
    assert scan.channels == {3: 2, 1: 2, 4: 1} and scan.bits == {8: 5}
    assert scan.short_sides == (20, 30, 64)
    assert scan.duplicates == 1 and scan.constant == 1
    assert scan.examples['unreadable'] == [str(tmp_path / 'broken.png')]
    assert f'{str(tmp_path / "broken.png")!r} cannot be read: ' in scan.reason
    assert scan.examples['duplicates'] == [str(tmp_path / 'copy.jpg')]
    assert not scan.is_raster


def test_all_unreadable_files_are_named_but_few_other_examples(tmp_path):
    for i in range(25):
        Image.fromarray(noise(i, 8, 8)).save(tmp_path / f'{i}.png')
        (tmp_path / f'broken{i}.png').write_bytes(b'no image')
    examples = scanned(tmp_path).examples
    assert len(examples['unreadable']) == 25
    assert len(examples['1 channels']) == len(examples['8 bits']) == 20


def test_damaged_pixels_count_as_unreadable(tmp_path):
    Image.fromarray(noise(0, 60, 60, 3)).save(tmp_path / 'a.png')
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'b.png').write_bytes(data[: len(data) // 2])
    scan = scanned(tmp_path)
    assert scan.images == 1 and scan.unreadable == 1
    assert scan.formats == dict(PNG=1) and scan.bytes == len(data)
    assert "b.png' cannot be read: " in scan.reason and not scan.odd_value


def test_images_of_other_kinds_are_rasters(tmp_path):
    np.save(tmp_path / 'a.npy', noise(0, 13, 40, 40, dtype=np.uint16))
    scan = scanned(tmp_path)
    assert scan.is_raster and scan.channels == {13: 1} and scan.bits == {16: 1}
    (tmp_path / 'grey').mkdir()
    Image.fromarray(noise(0, 40, 40, dtype=np.uint16)).save(tmp_path / 'grey' / 'a.png')
    assert scanned(tmp_path / 'grey').is_raster


def test_pictures_that_image_folder_does_not_find_are_rasters():
    scan = Scan('', formats=dict(JP2=1), channels={3: 1}, bits={8: 1})
    assert scan.is_raster and not replace(scan, formats=dict(PNG=1)).is_raster


def test_scans_are_read_back_until_a_file_changes(tmp_path):
    Image.fromarray(noise(0, 30, 50, 3)).save(tmp_path / 'a.png')
    scan = scanned(tmp_path)
    scan.save(tmp_path / 'scan.json')
    assert Scan.load(tmp_path / 'scan.json') == scan
    Image.fromarray(noise(1, 30, 51, 3)).save(tmp_path / 'a.png')
    assert scanned(tmp_path).fingerprint != scan.fingerprint
    (tmp_path / 'scan.json').write_text('{')
    assert Scan.load(tmp_path / 'scan.json') is None


def test_a_missing_package_is_named_and_not_taken_for_damage(tmp_path, monkeypatch):
    Image.fromarray(noise(0, 30, 50)).save(tmp_path / 'a.tif')
    monkeypatch.delitem(sys.modules, 'mmmixmim.datasets.readers.tiff', raising=False)
    monkeypatch.setitem(sys.modules, 'tifffile', None)
    with pytest.raises(MissingDependencyError, match='pip install tifffile'):
        scanned(tmp_path)


def test_pages_of_a_stack_are_channels(tmp_path):
    """Pillow would read the first page only."""
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(tmp_path / 'a.tif', noise(0, 3, 40, 50), photometric='minisblack')
    scan = scanned(tmp_path)
    assert scan.is_raster and scan.channels == {3: 1}
    assert scan.formats == {'TIFF stack': 1}
    for planar in ('contig', 'separate'):
        pixels = noise(0, 40, 50, 3)
        pixels = pixels if planar == 'contig' else pixels.transpose(2, 0, 1).copy()
        tifffile.imwrite(
            tmp_path / 'a.tif', pixels, photometric='rgb', planarconfig=planar
        )
        assert not scanned(tmp_path).is_raster


def test_a_rare_tiff_that_pillow_does_not_read_is_left_out(tmp_path):
    """Else the pictures beside it would count as rasters, too."""
    tifffile = pytest.importorskip('tifffile')
    for i in range(99):
        Image.fromarray(noise(i, 8, 8, 3)).save(tmp_path / f'{i}.png')
    path = tmp_path / 'a.tif'
    options = dict(photometric='minisblack', planarconfig='contig', metadata=None)
    tifffile.imwrite(path, noise(0, 40, 50, 3), **options)
    scan = scanned(tmp_path)
    assert (scan.images, scan.unreadable, scan.is_raster) == (99, 1, False)
    assert scan.reason == f'Pillow does not read {str(path)!r}.'


@pytest.mark.parametrize(
    'options',
    [
        dict(photometric='minisblack', planarconfig='contig'),
        dict(photometric='minisblack', planarconfig='separate'),
        dict(photometric='rgb', compression='jpeg2000'),
        dict(photometric='rgb', compression='lerc'),
        dict(photometric='rgb', compression='webp'),
    ],
    ids=str,
)
def test_tiffs_that_pillow_does_not_read_are_rasters(options, tmp_path):
    """Plain pictures are loaded by it, and training would fail."""
    tifffile = pytest.importorskip('tifffile')
    pytest.importorskip('imagecodecs')
    pixels = noise(0, 40, 50, 3)
    if options.get('planarconfig') == 'separate':
        pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    tifffile.imwrite(tmp_path / 'a.tif', pixels, metadata=None, **options)
    with pytest.raises(OSError):
        Image.open(tmp_path / 'a.tif').load()
    scan = scanned(tmp_path)
    assert scan.is_raster and scan.channels == {3: 1} and not scan.unreadable
    assert scan.formats == {'TIFF of bands': 1}
    data = (tmp_path / 'a.tif').read_bytes()
    assert scan_shards('', 1, 1, [dict(img_path='a.tif', img_bytes=data)]).is_raster


@pytest.mark.parametrize('kind', ['int8', 'uint8'])
def test_pictures_of_8_bits_have_no_sign(kind, tmp_path):
    """Pillow takes -1 for 255."""
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(tmp_path / 'a.tif', noise(0, 40, 50).view(kind))
    scan = scanned(tmp_path)
    assert scan.bits == {8: 1} and scan.is_raster == (kind == 'int8')


def test_warnings_are_shown_after_a_scan(tmp_path):
    """Each thread would put back the filters that it has found."""
    for i in range(8):  # the last to end begins while another one is at work
        side = 200 * (i + 1)
        Image.fromarray(noise(i, side, side)).save(tmp_path / f'{i}.jpg')
    before = [*warnings.filters]
    for _ in range(8):  # it was a matter of chance
        scanned(tmp_path)
    assert warnings.filters == before


def test_names_that_are_no_lines_of_text_and_links_to_nothing_are_unreadable(tmp_path):
    Image.fromarray(noise(0, 40, 40)).save(tmp_path / 'a.png')
    for name in ('b\n.png', 'c\r.png'):
        shutil.copy(tmp_path / 'a.png', tmp_path / name)
    latin = os.fsencode(tmp_path) + b'/\xe9.png'
    with open(latin, 'wb') as file:
        file.write((tmp_path / 'a.png').read_bytes())
    (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    scan = scanned(tmp_path)
    assert (scan.images, scan.unreadable) == (1, 4)


def test_the_fill_of_rasters_is_named(tmp_path):
    for i in range(3):
        pixels = noise(i, 20, 30).astype('float32')
        pixels[0] = np.finfo('float32').min
        np.save(tmp_path / f'{i}.npy', pixels)
    scan = scanned(tmp_path)
    assert scan.not_finite == 3
    with pytest.raises(UserError, match=r'say --no-data=-3.4028234663852886e\+38'):
        check_scan(scan)


def test_masks_may_cover_pixels_that_are_not_finite():
    examples = dict(not_finite=['a.tif'])
    scan = Scan('', 4, sampled=4, not_finite=1, odd_value='nan', examples=examples)
    with pytest.raises(UserError, match='say --no-data=nan'):
        check_scan(scan)
    check_scan(scan, masked=True)


def test_files_go_to_the_threads_in_chunks(tmp_path, monkeypatch):
    taken, pool = [], scan_module.ThreadPoolExecutor

    class Pool(pool):
        def map(self, function, files):
            taken.append(len(files))
            return super().map(function, files)

    monkeypatch.setattr(scan_module, 'ThreadPoolExecutor', Pool)
    monkeypatch.setattr(scan_module, '_CHUNK', 2)
    for i in range(5):
        Image.fromarray(noise(i, 8, 8)).save(tmp_path / f'{i}.png')
    assert scanned(tmp_path).images == 5
    assert taken[:3] == [2, 2, 1]
    assert not hasattr(read_header(tmp_path / '0.png'), '__dict__')


def test_items_that_are_missing_are_named():
    """A filtered series of pandas has the labels of the rows that are left."""

    class Series(dict):
        pass

    with pytest.raises(UserError, match='The Series has no item 1 of 2.*tolist'):
        scan_dataset('', Series({0: noise(0, 8, 8), 5: noise(1, 8, 8)}))
