"""tools/plan.py and tools/benchmarks/roofline.py on a real config."""

import sys

import pytest

from tests.conftest import ROOT
from tests.scripts import load

CONFIG = 'configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'


def run(script, monkeypatch, *options):
    monkeypatch.setattr(sys, 'argv', [script, str(ROOT / CONFIG), *map(str, options)])
    load(script).main()


def test_plan_and_check(monkeypatch, capsys):
    options = ('--gpu', 'rtx-4090', '--gpus', 1, 2, '--recompute', 'none', '--check', 2)
    run('plan.py', monkeypatch, *options, '--images', 1438)
    text = capsys.readouterr().out
    assert 'rtx-4090: 165 TFLOP/s, 1.01 TB/s, 24 GiB' in text
    assert '| 2 | 1 x 32 |' in text and '| DDP | none |' in text
    assert 'Check on this CPU, 2 images' in text


def test_roofline(monkeypatch, capsys):
    run('benchmarks/roofline.py', monkeypatch, '--batch-size', 4, '--rows', 3)
    text = capsys.readouterr().out
    assert "recompute='none'" in text and text.count('\n| forward |') <= 3
    assert '| all |' in text


@pytest.mark.parametrize(
    'options, message',
    [
        (['--gpu', 'h1000'], "error: Unknown GPU 'h1000'"),
        (['--gpus', '128'], 'error: 128 GPUs are more than the 64 images'),
    ],
)
def test_bad_input_is_one_line(monkeypatch, options, message):
    with pytest.raises(SystemExit, match=message):
        run('plan.py', monkeypatch, *options)
