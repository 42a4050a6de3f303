"""Scripts that run in turn and at once."""

import os

import pytest
import torch

from mmmixmim.runtime import Step, run_steps


@pytest.fixture
def script(tmp_path):
    """Make a step of some lines of Python."""

    def make(name, code, **options):
        path = tmp_path / f'{name}.py'
        path.write_text(code)
        return Step(name, [path], cost=1, **options)

    return make


def test_output_of_each_step_is_kept(script, tmp_path, capsys):
    line = 'print("Epoch(train) [2][ 5/10] time: 1 loss: 0.25")'
    steps = [script('first', 'print(1)'), script('second', line, epochs=3)]
    outputs, seconds = run_steps(steps, tmp_path / 'logs')
    assert outputs['first'] == '1\n' and 'loss: 0.25' in outputs['second']
    assert (tmp_path / 'logs' / 'first.log').read_text() == '1\n'
    assert '[2/2] second           100%' in capsys.readouterr().out
    assert seconds > 0


def test_steps_at_once_share_the_threads(script, tmp_path):
    # Each waits for the other, which would never end in turn.
    code = (
        'import os, pathlib, time\n'
        'here = pathlib.Path(__file__).parent\n'
        '(here / "{}.here").touch()\n'
        'while not (here / "{}.here").exists(): time.sleep(0.01)\n'
        'print(os.environ["OMP_NUM_THREADS"])'
    )
    pair = (script('a', code.format('a', 'b')), script('b', code.format('b', 'a')))
    alone = script('c', 'import os; print(os.environ["OMP_NUM_THREADS"])')
    outputs, _ = run_steps([pair, alone], tmp_path)
    threads = torch.get_num_threads()
    assert outputs['a'] == outputs['b'] == f'{max(1, threads // 2)}\n'
    assert outputs['c'] == f'{threads}\n'


def test_a_failure_ends_what_runs_beside_it(script, tmp_path):
    endless = (
        'import os, pathlib, time\n'
        'pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))\n'
        'while True: time.sleep(0.1)'
    )
    failing = (
        'import pathlib, sys, time\n'
        'pid = pathlib.Path(__file__).with_name("pid")\n'
        'while not (pid.exists() and pid.read_text()): time.sleep(0.01)\n'
        'sys.exit("broken")'
    )
    pair = (script('endless', endless), script('failing', failing))
    with pytest.raises(SystemExit, match='broken(.|\n)*failing ended with status 1'):
        run_steps([pair, script('never', '')], tmp_path / 'logs')
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'pid').read_text()), 0)
    assert {log.stem for log in (tmp_path / 'logs').iterdir()} == {'endless', 'failing'}
