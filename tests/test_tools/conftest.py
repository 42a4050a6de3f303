"""Fixtures for tests of the scripts."""

import pytest

from ..scripts import ONE_EPOCH, PRETRAIN, passed, run


@pytest.fixture(scope='session')
def pretraining(tmp_path_factory):
    """Work folder and output of one epoch of pretraining on the digits."""
    folder = tmp_path_factory.mktemp('pretrained')
    options = ['--work-dir', folder, '--cfg-options', *ONE_EPOCH]
    return folder, passed(run('train.py', PRETRAIN, *options, cwd=folder))


@pytest.fixture
def pretrained(pretraining):
    """Checkpoint of one epoch of pretraining on the digits."""
    return pretraining[0] / 'epoch_1.pth'
