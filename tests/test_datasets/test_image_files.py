"""Which image files are found in a folder."""

import os
from pathlib import Path

import pytest

from mmmixmim.datasets.file_list import list_files
from mmmixmim.datasets.image_files import Skipped, find_images
from mmmixmim.validation import MissingFileError, UserError


def test_hidden_files_and_folders_are_left_out(tmp_path):
    for name in ('a.png', '.b.png', '.ipynb_checkpoints/c.png', 'd/.e/f.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / 'a.png']


def test_links_to_a_folder_above_are_refused(tmp_path):
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep' / 'a.png').touch()
    (tmp_path / 'deep' / 'up').symlink_to(tmp_path)
    with pytest.raises(UserError, match='up. is a link to .*, a folder above it'):
        find_images(tmp_path)
    (tmp_path / 'deep' / 'up').unlink()
    (tmp_path / 'again').symlink_to(tmp_path / 'deep')
    assert len(find_images(tmp_path)) == 2


@pytest.mark.parametrize('look', [find_images, list_files])
def test_links_that_lead_to_each_other_are_refused(look, tmp_path):
    for name, other in ('ab', 'ba'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        (tmp_path / 'images' / name / 'a.png').touch()
        (tmp_path / 'images' / name / f'to_{other}').symlink_to(f'../{other}')
    with pytest.raises(UserError, match='a/to_b/to_a. is a link|b/to_a/to_b. is a'):
        look(tmp_path / 'images')


@pytest.mark.parametrize(
    ('look', 'named'), [(find_images, 'images/closed'), (list_files, '/.*/images/.*')]
)
def test_a_folder_that_cannot_be_listed_is_named(look, named, tmp_path, monkeypatch):
    (tmp_path / 'images' / 'closed').mkdir(parents=True)
    (tmp_path / 'images' / 'a.png').touch()
    (tmp_path / 'images' / 'closed').chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    try:
        if user == 0:  # root may list anything
            os.seteuid(65534)
        with pytest.raises(UserError, match=f"'{named}' cannot be listed .Permission"):
            look(Path('images'))
    finally:
        os.seteuid(user)


def test_links_beside_the_working_directory_are_no_circles(tmp_path, monkeypatch):
    for name in ('here/run', 'there'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'here' / 'a.png').touch()
    (tmp_path / 'there' / 'more').symlink_to(tmp_path / 'here')
    monkeypatch.chdir(tmp_path / 'here' / 'run')
    assert find_images(Path('../../there')) == [Path('../../there/more/a.png')]


def test_runs_among_shards_are_left_out(tmp_path):
    (tmp_path / 'run').mkdir()
    for name in ('run.json', 'config.py', 'reconstruction.png'):
        (tmp_path / 'run' / name).touch()
    (tmp_path / '0.tar').touch()
    with pytest.raises(MissingFileError, match='holds no images'):
        find_images(tmp_path)
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.png').touch()
    with pytest.raises(UserError, match="run' is the folder of a run"):
        find_images(tmp_path)


def test_files_that_are_no_images_by_their_ending_are_counted(tmp_path):
    names = ('a.png', 'a.txt', 'b.TXT', 'Thumbs.db', '.hidden', 'c.json', 'd.gif')
    for name in (*names, 'notes', '1.2.840.7'):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / 'pipe')  # to read from it would wait
    skipped = Skipped()
    assert find_images(tmp_path, skipped=skipped) == [tmp_path / 'a.png']
    assert skipped.endings == {'.txt': 2, '.json': 1, '.gif': 1, '': 3}
    text = str(skipped)
    assert text.startswith('7 files whose ending is not that of an image: none (3), ')
    assert '.txt (2), ' in text and text.endswith('others (1)')


@pytest.mark.parametrize('name', ['IM000001', '1.2.840.113619', 'SLICE.001'])
def test_dicom_files_without_an_ending_are_pointed_out(name, tmp_path):
    (tmp_path / 'DICOMDIR').write_bytes(bytes(128) + b'DICM')
    (tmp_path / 'LICENSE').write_text('no image')
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep' / name).write_bytes(bytes(128) + b'DICM')
    with pytest.raises(MissingFileError) as error:
        find_images(tmp_path)
    assert str(error.value).endswith(
        '.webp. It has 2 files whose ending is not that of an image: none (2). '
        f"'{tmp_path}/deep/{name}' has no ending and looks like DICOM: add .dcm to the "
        'names of such files.'
    )


def test_what_disks_keep_at_their_top_is_left_out(tmp_path):
    (tmp_path / 'lost+found').mkdir()
    for name in ('a.png', 'lost+found/b.png'):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / 'a.png']
    assert list_files(str(tmp_path)) == ['a.png']
