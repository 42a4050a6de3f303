"""Plans of a real config."""

import re

import pytest

from tests.conftest import ROOT

from .conftest import error_line, mixmim

CONFIG = ROOT / 'configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'


def test_plan_and_check():
    options = ('--gpu', 'rtx-4090', '--gpus', '1,2', '--recompute', 'none')
    options += ('--check', 32, '--images', 1438, '--precision', 'float32,bf16')
    options += ('--cfg-options', 'train_cfg.max_epochs=80')
    code, text, err = mixmim('plan', CONFIG, *options)
    assert code == 0, err
    assert 'rtx-4090: 165 TFLOP/s in fp16 and bf16, 82.6 in fp32; 1.01 TB/s' in text
    assert '| 2 | DDP | none | 1 x 32 |' in text and '| 2 | FSDP |' in text
    assert '| bf16 | DDP | none |' in text and '| norms |' not in text
    assert '50 GB/s between machines; a core loads 700 images' in text
    check = text[text.index('Check on this CPU, 32 images') :]
    memory, time = map(float, re.findall(r'error ([+-][\d.]+)%', check))
    assert abs(memory) < 20
    assert time > -100  # how wrong it is depends on what else the machine does


@pytest.mark.parametrize(
    'options, message',
    [
        (['--gpu', 'h1000'], "error: Unknown GPU 'h1000'"),
        (['--gpus', '128'], 'error: 128 GPUs are more than the 64 images'),
        (['--cfg-options', 'no_entry=1'], 'the config has no no_entry'),
    ],
)
def test_bad_input_is_one_line(options, message):
    assert message in error_line('plan', CONFIG, *options)


@pytest.mark.parametrize(
    'options, message',
    [
        (['--gpus', '8,0'], '0 is not in the range'),
        (['--recompute', 'none,all'], "'all' is not one of"),
        (['--cfg-options', 'lr'], 'expected KEY=VALUE'),
    ],
)
def test_options_are_checked(options, message):
    code, _, err = mixmim('plan', CONFIG, *options)
    assert code == 2 and message in err
