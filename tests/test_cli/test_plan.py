"""Plans of a real config."""

import re
from types import SimpleNamespace

import pytest

from mmmixmim.benchmarking import Card, KernelCounter, roofline
from mmmixmim.cli import plan
from tests.conftest import ROOT

from .conftest import error_line, mixmim

CONFIG = ROOT / 'configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'


def test_plan_and_check():
    options = ('--gpu', 'rtx-4090', '--gpus', '1,2', '--recompute', 'none')
    options += ('--check', 32, '--images', 1438, '--precision', 'float32,bf16')
    options += ('--cfg-options', 'optim_wrapper.accumulative_counts=2')
    code, text, err = mixmim('plan', CONFIG, *options)
    assert code == 0, err
    assert 'rtx-4090: 165 TFLOP/s in fp16 and bf16, 82.6 in fp32; 1.01 TB/s' in text
    # Two passes of the 64 images in the name, for both GPUs.
    assert '| 2 | DDP | none | 1 x 64 |' in text and '| 2 | FSDP |' in text
    assert '| bf16 | DDP | none |' in text and '| norms |' not in text
    assert '50 GB/s per GPU between machines; a core loads 700 images' in text
    check = text[text.index('Check on this CPU, 32 images') :]
    # How large they are depends on what this process and the machine have done.
    assert len(re.findall(r'error ([+-][\d.]+)%', check)) == 2


def test_the_check_compares_memory_and_time(monkeypatch):
    counter = KernelCounter()
    counter.calls['mm', False, 2 * 10**9, 10] = 3
    cost = SimpleNamespace(
        memory=dict(activations=3 * 2**30),
        kernels=dict(forward=counter, backward=counter),
    )
    rate = 1e9 / roofline.PEAK_SHARE
    card = Card('CPU', rate, rate, 1e15 / roofline.BANDWIDTH_SHARE, 1, 1)
    monkeypatch.setattr(plan, 'step_cost', lambda *args, **kwargs: cost)
    monkeypatch.setattr(plan, 'measured_step', lambda *args: (2 * 2**30, 16.0))
    monkeypatch.setattr(plan, 'cpu_card', lambda: card)
    text = plan._check(None, 4, None)
    assert 'predicted 3.00 GiB, measured 2.00 GiB, error +50.0%' in text
    assert 'predicted 12.000 s from 1 GFLOP/s and 1000000.0 GB/s' in text
    assert text.endswith('measured 16.000 s, error -25.0%.')


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
