"""Which image files are found in a folder."""

import pytest

from mmmixmim.datasets.image_files import find_images
from mmmixmim.validation import UserError


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
