"""How files are replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmmixmim.runtime import replace_file, write_json


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    """As /dev/stdout and /dev/null are, which a superuser could replace."""
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_json(pipe, dict(a=1), given=True)
    assert os.read(reader, 99) == b'{\n  "a": 1\n}\n'
    os.close(reader)
    assert pipe.is_fifo() and [*tmp_path.iterdir()] == [pipe]


def test_the_output_of_a_command_goes_into_a_pipe():
    code = (
        'from pathlib import Path; from mmmixmim.runtime import write_json\n'
        "write_json(Path('/dev/stdout'), dict(a=1), given=True)"
    )
    process = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE)
    assert process.stdout == b'{\n  "a": 1\n}\n'


def test_a_failure_keeps_the_old_file(tmp_path):
    file = tmp_path / 'a' / 'b.json'
    write_json(file, dict(a=1))
    with pytest.raises(UnicodeEncodeError):
        replace_file(file, '\ud800')
    assert file.read_text() == '{\n  "a": 1\n}\n' and [*file.parent.iterdir()] == [file]


def test_a_link_that_the_user_gave_stays_one(tmp_path):
    file, link = tmp_path / 'a.txt', tmp_path / 'link.txt'
    file.write_text('old')
    link.symlink_to(file)
    replace_file(link, 'new', given=True)
    assert link.is_symlink() and file.read_text() == 'new'


def test_a_link_that_nobody_gave_is_replaced_by_the_file(tmp_path):
    """Whoever made the folder may have let it lead to a file of the user's."""
    file, pipe = tmp_path / 'a.txt', tmp_path / 'pipe'
    file.write_text('old')
    os.mkfifo(pipe)
    for target in (file, pipe, tmp_path / 'missing', Path('/dev/null')):
        link = tmp_path / 'link.txt'
        link.symlink_to(target)
        replace_file(link, 'new')
        assert not link.is_symlink() and link.read_text() == 'new'
        link.unlink()
    replace_file(pipe, 'new')
    assert file.read_text() == 'old' and pipe.read_text() == 'new'
    assert {*tmp_path.iterdir()} == {file, pipe}
