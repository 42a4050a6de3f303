from pathlib import Path

import pytest
from PIL import Image

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError


def build(folder, **kwargs):
    return DATASETS.build(dict(type='ImageFolder', data_root=str(folder), **kwargs))


def names(dataset):
    return [Path(dataset[i]['img_path']).name for i in range(len(dataset))]


def test_finds_images_at_any_depth(image_folder):
    assert sorted(names(build(image_folder))) == [
        'a.jpg',
        'b.png',
        'c.JPEG',
        'd.png',
        'e.webp',
    ]


def test_takes_a_flat_folder(image_folder):
    assert names(build(image_folder / 'deep' / 'er')) == ['c.JPEG']


@pytest.mark.parametrize('ending', ['.bmp', '.tif', '.TIFF', '.ppm', '.pgm', '.Jpeg'])
def test_finds_less_common_formats(tmp_path, ending):
    Image.new('L', (9, 9)).save(tmp_path / f'a{ending}')
    (sample,) = build(tmp_path, pipeline=[dict(type='LoadImageFromFile')])
    assert sample['img'].shape == (9, 9, 3)


def test_extensions_can_be_chosen(image_folder):
    assert names(build(image_folder, extensions=('.PNG',))) == ['b.png', 'd.png']


def test_every_kind_of_file_goes_through_the_pipeline(image_folder):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32, backend='pillow'),
        dict(type='PackInputs'),
    ]
    dataset = build(image_folder, pipeline=pipeline)
    assert [tuple(sample['inputs'].shape) for sample in dataset] == [(3, 32, 32)] * 5


def test_expands_the_home_folder(image_folder, monkeypatch):
    monkeypatch.setenv('HOME', str(image_folder.parent))
    assert len(build('~/images')) == 5


def test_refuses_a_missing_folder(tmp_path):
    message = "no image folder '.*nowhere/?'.*data_root="
    with pytest.raises(MissingFileError, match=message):
        build(tmp_path / 'nowhere')


def test_refuses_a_folder_without_images(tmp_path):
    (tmp_path / 'notes.txt').write_text('not an image')
    with pytest.raises(MissingFileError, match=r'holds no image.*\.jpg.*data_root='):
        build(tmp_path)
