import argparse
import os
import pickle
import resource
from datetime import datetime
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmmixmim.checkpoint import read_weights, write_weights
from mmmixmim.validation import UserError

STATE = {'patch_embed.proj.weight': torch.rand(4, 3, 2, 2), 'index': torch.arange(4)}


class Attack:
    """What runs code when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def assert_same(a, b):
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    'format, key', [('authors', 'model'), ('mmmixmim', 'state_dict')]
)
def test_written_files_are_read(tmp_path, format, key):
    path = tmp_path / 'new' / 'weights.pth'
    write_weights(STATE, path, format)
    assert list(torch.load(path, weights_only=True)) == [key]
    assert_same(read_weights(path), STATE)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    """Where the disk is full, the old one stays."""
    path = tmp_path / 'weights.pth'
    write_weights(STATE, path, 'mmmixmim')
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError):
            write_weights(STATE | dict(large=torch.zeros(100_000)), path, 'mmmixmim')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert list(tmp_path.iterdir()) == [path]
    assert_same(read_weights(path), STATE)


def test_nothing_but_a_file_is_replaced(tmp_path):
    with pytest.raises(UserError, match='is a folder: name the file'):
        write_weights(STATE, tmp_path, None)
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(UserError, match='is no file: name the file'):
        write_weights(STATE, tmp_path / 'pipe', None)


def test_bare_state_dict_is_read(tmp_path):
    torch.save(STATE, tmp_path / 'bare.pth')
    assert_same(read_weights(tmp_path / 'bare.pth'), STATE)


def test_what_a_runner_and_the_authors_save_beside_is_left_out(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    for name, content in {
        'runner.pth': dict(
            state_dict=STATE, message_hub=dict(log_scalars=dict(loss=history)), meta={}
        ),
        'authors.pth': dict(
            model=STATE,
            optimizer={},
            epoch=3,
            args=argparse.Namespace(lr=0.1, out=Path('out'), day=datetime(2024, 1, 2)),
        ),
    }.items():
        torch.save(content, tmp_path / name)
        assert_same(read_weights(tmp_path / name), STATE)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    torch.save(
        dict(state_dict=STATE, meta=Attack(tmp_path / 'run')), tmp_path / 'a.pth'
    )
    with pytest.raises(ValueError, match='a.pth is not loaded.*could run code'):
        read_weights(tmp_path / 'a.pth')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'not a PyTorch checkpoint'),
        (b'not a checkpoint', 'could run code, or is damaged|not a PyTorch checkpoint'),
        (
            pickle.dumps([1, 2]),
            'could run code, or is damaged|not a PyTorch checkpoint',
        ),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / 'file.pth').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_weights(tmp_path / 'file.pth')


def test_checkpoint_without_weights_is_refused(tmp_path):
    torch.save(dict(epoch=3), tmp_path / 'empty.pth')
    with pytest.raises(ValueError, match='holds no weights'):
        read_weights(tmp_path / 'empty.pth')


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no checkpoint file .*nowhere.pth'):
        read_weights(tmp_path / 'nowhere.pth')
