import os
import time

import pytest

from mmmixmim.datasets.file_list import list_files
from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingFileError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'images'
    (root / 'deep' / 'er').mkdir(parents=True)
    for name in ('b.jpg', 'deep/a.png', 'deep/er/ö c.jpg', '.hidden.jpg'):
        (root / name).write_bytes(b'')
    return root


NAMES = ['b.jpg', 'deep/a.png', 'deep/er/ö c.jpg']


def test_lists_what_the_folder_holds(folder, tmp_path):
    cache = tmp_path / 'run' / 'files.list'
    assert list_files(str(folder), str(cache)) == NAMES
    assert [each.name for each in cache.parent.iterdir()] == ['files.list']


def test_unchanged_folder_is_not_read_again(folder, tmp_path):
    """The list is that of the file, which says something else here."""
    cache = tmp_path / 'files.list'
    for each in (folder, folder / 'deep', folder / 'deep' / 'er'):
        os.utime(each, ns=(0, 0))
    list_files(str(folder), str(cache))
    cache.write_bytes(cache.read_bytes().replace(b'a.png', b'z.png'))
    assert list_files(str(folder), str(cache)) == ['b.jpg', 'deep/z.png', NAMES[2]]


def test_a_change_that_leaves_the_time_is_seen(folder, tmp_path):
    """It comes right after the list was written, and the disk has coarse times."""
    deep, now = folder / 'deep' / 'er', time.time_ns() + 60 * 10**9
    os.utime(deep, ns=(now, now))
    list_files(str(folder), str(tmp_path / 'files.list'))
    (deep / 'd.jpg').touch()
    os.utime(deep, ns=(now, now))
    found = list_files(str(folder), str(tmp_path / 'files.list'))
    assert found == [*NAMES[:2], 'deep/er/d.jpg', NAMES[2]]


@pytest.mark.parametrize('change', ['add', 'remove', 'folder', 'rename'])
def test_changes_are_seen(folder, tmp_path, change):
    cache = tmp_path / 'files.list'
    list_files(str(folder), str(cache))
    deep = folder / 'deep' / 'er'
    os.utime(deep, ns=(0, 0))  # the clock of the file system may be coarse
    list_files(str(folder), str(cache))
    if change == 'add':
        (deep / 'd.jpg').write_bytes(b'')
        wanted = [*NAMES[:2], 'deep/er/d.jpg', NAMES[2]]
    elif change == 'remove':
        (folder / NAMES[2]).unlink()
        wanted = NAMES[:2]
    elif change == 'folder':
        (deep / 'new').mkdir()
        (deep / 'new' / 'd.jpg').write_bytes(b'')
        wanted = [*NAMES[:2], 'deep/er/new/d.jpg', NAMES[2]]
    else:
        (folder / NAMES[2]).rename(deep / 'c.jpg')
        wanted = [*NAMES[:2], 'deep/er/c.jpg']
    assert list_files(str(folder), str(cache)) == wanted


@pytest.mark.parametrize('content', [b'', b'junk', b'[]\0a', b'{}\0a'])
def test_damaged_list_is_written_anew(folder, tmp_path, content):
    cache = tmp_path / 'files.list'
    cache.write_bytes(content)
    for _ in range(2):
        assert list_files(str(folder), str(cache)) == NAMES
        assert b'deep/a.png' in cache.read_bytes()


def test_list_of_another_folder_is_not_used(folder, tmp_path):
    cache = tmp_path / 'files.list'
    list_files(str(folder / 'deep'), str(cache))
    assert list_files(str(folder), str(cache)) == NAMES


def test_image_folder_keeps_its_list(image_folder, tmp_path):
    options = dict(type='ImageFolder', data_root=str(image_folder))
    plain = DATASETS.build(options)
    for _ in range(2):
        cached = DATASETS.build(options | dict(list_cache=str(tmp_path / 'files.list')))
        assert [cached[i] for i in range(5)] == [plain[i] for i in range(5)]
        assert b'deep/d.png' in (tmp_path / 'files.list').read_bytes()
    (tmp_path / 'none').mkdir()
    with pytest.raises(MissingFileError, match='holds no images'):
        DATASETS.build(
            options
            | dict(data_root=str(tmp_path / 'none'), list_cache=str(tmp_path / 'l'))
        )
