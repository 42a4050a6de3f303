"""tools/steps.py: running scripts one after another and in parallel."""

import os
import re
import sys

import pytest
import torch

from ..scripts import load

steps = load('steps.py')
Progress, Step, run_steps = steps.Progress, steps.Step, steps.run_steps


@pytest.fixture
def script(tmp_path):
    """Function that writes a script and returns it as a step."""

    def make(name, code, cost=1, **options):
        path = tmp_path / f'{name}.py'
        path.write_text(code)
        return Step(name, [path], cost=cost, **options)

    return make


@pytest.fixture
def terminal(monkeypatch, capsys):
    """Progress lines printed to a terminal."""
    monkeypatch.setattr(type(sys.stdout), 'isatty', lambda self: True)
    return lambda: [x.rstrip() for x in capsys.readouterr().out.split('\r') if x]


@pytest.fixture
def clock(monkeypatch):
    """Function that advances a fake clock."""
    time = [100.0]
    monkeypatch.setattr(steps.time, 'monotonic', lambda: time[0])

    def advance(seconds):
        time[0] += seconds

    return advance


def test_output_of_each_step_is_kept(script, tmp_path, capsys):
    code = 'import sys\nprint(sys.argv[1:])\nprint("warning", file=sys.stderr)'
    first = script('first', code)
    first.command += ['a b', 3]
    steps = [first, script('second', 'print(2)')]
    outputs, seconds = run_steps(steps, tmp_path / 'new' / 'logs')
    assert sorted(outputs['first'].splitlines()) == ["['a b', '3']", 'warning']
    assert outputs['second'] == '2\n'
    for name, output in outputs.items():
        assert (tmp_path / 'new' / 'logs' / f'{name}.log').read_text() == output
    lines = capsys.readouterr().out.splitlines()
    starts = [' '.join(line.split()[:3]) for line in lines]
    assert starts == [
        '[1/2] first 0%',
        '[1/2] first 100%',
        '[2/2] second 0%',
        '[2/2] second 100%',
    ]
    assert seconds > 0


def test_progress_follows_the_epochs_of_a_training(script, tmp_path, terminal):
    """The share is the number of finished iterations over that of all epochs."""
    at = {(1, 1): 2, (1, 10): 25, (2, 5): 38, (3, 10): 75, (4, 9): 98, (4, 10): 99}
    lines = [
        f'2030/01/01 - mmengine - INFO - Epoch(train)  [{epoch}][{i:2}/10]  '
        f'lr: 1.0000e-04  eta: 0:00:01  time: 0.1  loss: 0.{epoch}{i:03}9  a_loss: 7'
        for epoch, i in at
    ]
    # Other lines are not progress.
    lines += ['Epoch(val) [4][5/8]  loss: 3.0', 'Epoch(train) [9][1/2] without']
    steps = [script('train', f'print({chr(10).join(lines)!r})', epochs=4)]
    run_steps(steps, tmp_path / 'logs')
    shown = [re.findall(r'(\d+)%  (?:loss ([\d.]+))?', x)[0] for x in terminal()]
    expected = [(str(at[e, i]), f'0.{e}{i:03}'[:5]) for e, i in at]
    assert shown == [('0', ''), *expected, ('100', '')]


def test_progress_estimates_the_time_left(clock, terminal):
    steps = [Step('short', [], cost=1), Step('long', [], cost=9)]
    progress = Progress(steps)
    progress.show(steps[0], 0)
    clock(3)
    progress.show(steps[0], 0.3)  # 3 % of the total: too early to estimate
    clock(7)
    progress.show(steps[0], 1)
    clock(40)
    progress.show(steps[1], 4 / 9, 'loss 0.5')
    assert terminal() == [
        '[1/2] short              0%                estimating the time left',
        '[1/2] short             30%                estimating the time left',
        '[1/2] short            100%                about 1 min 30 s left',
        '[2/2] long              44%  loss 0.5      about 50 s left',
    ]


def test_parallel_steps_add_to_one_estimate(clock, terminal):
    steps = [Step(name, [], cost=1) for name in 'ab']
    progress = Progress(steps)
    clock(10)
    progress.show(steps[0], 0.5)
    progress.show(steps[1], 0.5)
    assert [line.split('about')[1] for line in terminal()] == [
        ' 30 s left',
        ' 10 s left',
    ]


def test_log_files_get_a_line_every_ten_seconds(clock, capsys):
    step = Step('a', [], cost=1)
    progress = Progress([step])
    for fraction in (0, 0.1, 0.2, 0.3, 1):
        progress.show(step, fraction)
        clock(6)
    lines = capsys.readouterr().out.splitlines()
    assert [re.search(r'(\d+)%', line)[1] for line in lines] == ['0', '20', '100']


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    """Number of threads, independent of the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_parallel_steps_share_the_threads(script, tmp_path, threads):
    # Each waits for the other: they only end when run in parallel.
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
    half = {1: 1, 2: 1, 5: 2}[threads]
    assert outputs == dict(a=f'{half}\n', b=f'{half}\n', c=f'{threads}\n')


def test_a_failure_ends_what_runs_in_parallel(script, tmp_path):
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
    logs = tmp_path / 'logs'
    with pytest.raises(SystemExit) as error:
        run_steps([pair, script('never', '')], logs)
    message = f'error: failing failed with exit status 1, see {logs / "failing.log"}'
    assert error.value.code == f'\nbroken\n\n{message}'
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / 'pid').read_text()), 0)
    assert {log.stem for log in logs.iterdir()} == {'endless', 'failing'}
