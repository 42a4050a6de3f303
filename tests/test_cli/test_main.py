"""The command line itself."""

import os
import re
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from mmmixmim.benchmarking.roofline import CARDS
from mmmixmim.cli.doctor import run_checks
from mmmixmim.cli.machine import Machine
from mmmixmim.cli.main import cli

from .conftest import mixmim, write_pictures


@pytest.mark.parametrize('command', sorted(cli.commands))
def test_help_has_an_example(command):
    code, printed, _ = mixmim(command, '--help')
    assert code == 0
    assert re.search(rf'Example:\n +mixmim {command}', printed)


def test_help_lists_the_commands():
    code, printed, _ = mixmim('--help')
    assert code == 0
    for command in cli.commands:
        assert re.search(rf'^  {command} +\w', printed, re.M)


def test_help_names_every_card():
    _, printed, _ = mixmim('plan', '--help')
    assert all(re.search(rf'\b{name}\b', printed) for name in CARDS)


def test_the_shell_completes_commands_and_options():
    shell = BashComplete(cli, {}, 'mixmim', '_MIXMIM_COMPLETE')
    commands = {each.value for each in shell.get_completions([], 'p')}
    assert commands == {'plan', 'predict', 'pretrain', 'probe'}
    options = {each.value for each in shell.get_completions(['pretrain'], '--e')}
    assert options == {'--epochs'}


def test_reconstructions_of_other_images(pretrained, photos, tmp_path):
    file = tmp_path / 'others.png'
    images = ('--images', photos / 'sea', '--out', file, '--num', 4)
    code, printed, err = mixmim('reconstruct', pretrained[0], *images)
    assert code == 0, err
    assert printed.strip() == str(file) and file.stat().st_size
    write_pictures(tmp_path / 'few', 4)  # fewer than are held out
    images = ('--images', tmp_path / 'few', '--out', file)
    assert mixmim('reconstruct', pretrained[0], *images)[0] == 0
    code, _, err = mixmim('reconstruct', tmp_path)
    assert code == 1 and 'is not the folder of a run' in err
    assert '(tools/train.py writes none)' in err
    code, _, err = mixmim('reconstruct', tmp_path / 'nowhere')
    assert code == 1 and 'does not exist' in err


def test_doctor_names_the_way_out():
    machine = Machine('cpu', 'CPU', 2**30, cores=1024, shared_memory=2**26)
    checks = list(run_checks(machine))
    (threads,) = [check for check in checks if 'cores compute' in check.what]
    assert threads.way_out == 'export OMP_NUM_THREADS=1024'
    (shared,) = [check for check in checks if '0.06 GiB of free shared' in check.what]
    assert 'docker run --shm-size' in shared.way_out
    assert all(check.way_out for check in checks if check.level == 'wrong')
    code, printed, _ = mixmim('doctor')
    assert 'MMEngine' in printed and 'torch' in printed
    assert code == any(line.startswith('wrong') for line in printed.splitlines())


def test_a_terminal_gets_one_line_that_is_rewritten(photos, tmp_path):
    """In a real terminal, which is 60 columns wide."""
    pty = pytest.importorskip('pty')
    output = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1024)
        output.extend(data)
        return data

    command = [sys.executable, '-m', 'mmmixmim', 'pretrain', str(photos)]
    command += ['--out', str(tmp_path / 'run'), '--epochs', '2']
    before = {name: os.environ.get(name) for name in ('COLUMNS', 'PYTHONPATH')}
    os.environ['COLUMNS'] = '60'
    os.environ['PYTHONPATH'] = str(Path(__file__).parents[2])
    try:
        status = pty.spawn(command, read)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    shown = output.decode()
    assert os.waitstatus_to_exitcode(status) == 0, shown
    live = re.findall(r'\r(epoch [^\r\n]*)\x1b\[K', shown)
    assert len(live) > 3 and max(map(len, live)) < 60
    assert live[-1].startswith('epoch 2/2  100%  loss')
    # Between the first and the last there is no line break.
    start, end = shown.index(f'\r{live[0]}'), shown.rindex(f'\r{live[-1]}')
    assert '\n' not in shown[start:end]
