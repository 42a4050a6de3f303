import os
from pathlib import Path

import pytest
from PIL import Image

from mmmixmim.datasets import ImageFolder
from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError, UserError


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


@pytest.fixture
def numbered_folder(tmp_path):
    folder = tmp_path / 'numbered'
    for i in range(200):
        path = folder / f'{i % 7}' / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('L', (2, 2)).save(path)
    return folder


def parts(folder, **kwargs):
    return [set(names(build(folder, part=p, **kwargs))) for p in ('train', 'held_out')]


@pytest.mark.parametrize('held_out, count', [(0.2, 40), (30, 30), (1, 1), (0, 0)])
def test_parts_divide_the_images(numbered_folder, held_out, count):
    train, held = parts(numbered_folder, held_out=held_out)
    assert (len(train), len(held)) == (200 - count, count)
    assert not train & held


def test_choice_is_the_same_wherever_the_folder_lies(numbered_folder, tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    moved = tmp_path / 'elsewhere' / 'b'
    before = parts(numbered_folder, held_out=50)
    numbered_folder.rename(moved)
    assert parts(moved, held_out=50) == before == parts(f'{moved}/', held_out=50)


def test_held_out_images_stay_so_when_images_are_added(numbered_folder):
    before = parts(numbered_folder, held_out=0.1)[1]
    for i in range(20):
        Image.new('L', (2, 2)).save(numbered_folder / f'new{i}.png')
    after = parts(numbered_folder, held_out=0.1)[1]
    assert len(after) == 22 and len(before - after) <= 3


def test_held_out_images_are_of_all_folders(numbered_folder):
    dataset = build(numbered_folder, part='held_out', held_out=0.3)
    paths = [Path(dataset[i]['img_path']) for i in range(len(dataset))]
    assert len({path.parent.name for path in paths}) == 7


def test_a_share_is_at_most_the_limit(numbered_folder, monkeypatch):
    from mmmixmim.datasets import ImageFolder

    monkeypatch.setattr(ImageFolder, 'MOST', 25)
    assert [len(part) for part in parts(numbered_folder, held_out=0.5)] == [175, 25]


def test_a_folder_that_is_too_small_holds_out_none(image_folder, caplog):
    train, held = parts(image_folder, held_out=0.05)
    assert (len(train), len(held)) == (5, 0)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(part='test'), "part must be 'train' or 'held_out', got 'test'"),
        (dict(held_out=-1), 'must not be negative, got -1'),
        (dict(held_out=1.5), 'a share below 1, got 1.5'),
        (dict(held_out='many'), "a share below 1, got 'many'"),
        (dict(held_out=5), 'held_out=5 leaves none of the 5 images'),
    ],
)
def test_refuses_parts_that_make_no_sense(image_folder, options, message):
    with pytest.raises(UserError, match=message):
        build(image_folder, **options)


def test_hidden_files_are_left_out_with_a_list_and_without(tmp_path):
    for name in ('a.png', '.b.png', '.cache/c.png', 'd/e.png'):
        (tmp_path / 'images' / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / 'images' / name).touch()
    for options in ({}, dict(list_cache=str(tmp_path / 'list.json'))):
        dataset = ImageFolder(str(tmp_path / 'images'), **options)
        names = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
        assert [name[-5:] for name in names] == ['a.png', 'e.png']


@pytest.mark.parametrize('cached', [False, True])
def test_what_is_neither_file_nor_folder_is_left_out(image_folder, tmp_path, cached):
    options = dict(list_cache=str(tmp_path / 'files.list')) if cached else {}
    before = len(build(image_folder, **options))
    (image_folder / 'self.png').symlink_to('self.png')
    (image_folder / 'lost.png').symlink_to('nothing.png')
    os.mkfifo(image_folder / 'pipe.png')
    assert len(build(image_folder, **options)) == before


@pytest.mark.parametrize('cached', [False, True])
def test_links_to_a_folder_above_are_named(image_folder, tmp_path, cached):
    (image_folder / 'deep' / 'up').symlink_to(image_folder)
    options = dict(list_cache=str(tmp_path / 'files.list')) if cached else {}
    with pytest.raises(UserError, match='up. is a link to .*, a folder above it'):
        build(image_folder, **options)
