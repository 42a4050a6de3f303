"""Plans of a real config."""

import pytest

from tests.conftest import ROOT

from .conftest import error_line, mixmim

CONFIG = ROOT / 'configs/digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'


def test_plan_and_check():
    options = ('--gpu', 'rtx-4090', '--gpus', '1,2', '--recompute', 'none')
    options += ('--check', 2, '--images', 1438)
    options += ('--cfg-options', 'train_cfg.max_epochs=80')
    code, text, err = mixmim('plan', CONFIG, *options)
    assert code == 0, err
    assert 'rtx-4090: 165 TFLOP/s, 1.01 TB/s, 24 GiB' in text.replace('**', '')
    assert '| 2 | 1 x 32 |' in text and '| DDP | none |' in text
    assert '| DDP | norms |' not in text
    assert 'Check on this CPU, 2 images' in text


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
