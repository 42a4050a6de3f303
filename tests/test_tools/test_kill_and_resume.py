"""The script that kills and resumes runs at random moments."""

import re

import numpy as np
import pytest
import torch

from ..scripts import ONE_ITERATION, PRETRAIN, call, load, passed

SCRIPT = 'benchmarks/kill_and_resume.py'


def test_killed_run_has_the_same_bits(tmp_path):
    options = ['--kills', '1', '--cfg-options', *ONE_ITERATION]
    options += ['train_dataloader.batch_size=4']
    output = passed(call(SCRIPT, PRETRAIN, *options, cwd=tmp_path))
    assert re.search(r'^1 kills, \d+ runs, 0 differing bits$', output, re.MULTILINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'a, b, bits',
    [
        (1.0, 1.0, 0),
        (np.arange(4), np.array([0, 1, 2, 4]), 3),
        (dict(x=[torch.zeros(3), 1]), dict(x=[torch.tensor([0.0, 0.0, -0.0]), 1]), 1),
        ((torch.tensor(float('nan')),), (torch.tensor(float('nan')),), 0),
    ],
)
def test_every_bit_counts(a, b, bits):
    assert load(SCRIPT).differing_bits(a, b) == bits
