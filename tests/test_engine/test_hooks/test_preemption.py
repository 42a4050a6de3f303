import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.fileio import FileClient, LocalBackend, register_backend
from mmengine.hooks import Hook

from mmmixmim.checkpoint.resumable import find_resumable
from mmmixmim.engine import PreemptionHook
from mmmixmim.engine.hooks import preemption
from mmmixmim.validation import UserError

from ..runs import (
    CONFIGS,
    LAST,
    content,
    differences,
    tiny_finetuning,
    tiny_pretraining,
    train,
)


class SignalHook(Hook):
    """Send a signal to this process at a stage."""

    priority = 'VERY_HIGH'

    def __init__(self, stage, number, name):
        self.left = number
        self.signal = signal.Signals[name]
        setattr(self, stage, self._send)

    def _send(self, *args, **kwargs):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), self.signal)


@pytest.mark.parametrize(
    'loop, processes, stage, name',
    [
        ('epoch', 1, 'after_val_iter', 'SIGTERM'),
        ('epoch', 2, 'before_train_iter', 'SIGTERM'),
        ('iter', 1, 'before_train_iter', 'SIGINT'),
    ],
)
def test_signal_saves_and_the_run_goes_on_later(
    loop, processes, stage, name, left_alone, tmp_path
):
    cfg = CONFIGS[loop](tmp_path)
    cfg.default_hooks.preemption.minutes = None
    hook = (SignalHook, stage, 3, name)
    # With two processes, one of them gets the signal, and both stop.
    rank = processes - 1
    assert train(cfg, hook, processes=processes, killed_rank=rank) == 75
    (log,) = tmp_path.glob('*/*.log')
    last = log.read_text().rstrip().splitlines()[-1]
    assert 'everything is saved. To continue: ' in last
    assert last.endswith(' --resume')

    cfg = CONFIGS[loop](tmp_path)
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    assert train(cfg, processes=processes) == 0
    assert 'resumed epoch: ' in max(tmp_path.glob('*/*.log')).read_text()
    expected, got = map(content, (left_alone(loop, processes), tmp_path / LAST[loop]))
    assert not differences(expected, got)
    assert not (tmp_path / 'latest.pth').exists()


class SignalToAll(Hook):
    """Let another process send SIGTERM to this one and its workers."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 2:
            workers = [each.pid for each in multiprocessing.active_children()]
            assert workers
            subprocess.run(['kill', '-TERM', *map(str, [*workers, os.getpid()])])


@pytest.mark.skipif(not hasattr(signal, 'sigwaitinfo'), reason='needs Linux')
@pytest.mark.parametrize('method, workers', [('fork', 2), ('spawn', 1)])
def test_a_signal_to_all_processes_does_not_kill_the_workers(method, workers, tmp_path):
    """As of Slurm's scancel. The main process still ends them: else it would hang."""
    cfg = tiny_pretraining(tmp_path, workers)
    cfg.env_cfg.mp_cfg.mp_start_method = method
    assert train(cfg, (SignalToAll,)) == 75
    assert (tmp_path / 'latest.pth').exists()


def test_validation_ends_at_once_where_the_checkpoint_exists(tmp_path):
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    for _ in range(2):  # also when the validation is repeated
        # Of the three batches of the first validation, the first one.
        assert train(cfg, (SignalHook, 'after_val_iter', 1, 'SIGTERM')) == 75
        last = content(find_resumable(tmp_path))
        assert (last['meta']['epoch'], last['meta']['iter']) == (1, 3)
        assert 'val/accuracy/top1' not in last['message_hub']['log_scalars']
        cfg.update(resume=True, load_from=find_resumable(tmp_path))


def test_a_validation_that_is_not_repeated_is_finished(tmp_path):
    """MMEngine's loop would continue after it."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
    assert train(cfg, (SignalHook, 'after_val_iter', 1, 'SIGTERM')) == 0
    assert (tmp_path / 'best_accuracy_top1_iter_3.pth').exists()


def test_a_resumed_file_of_elsewhere_is_not_the_last_of_the_run(tmp_path):
    """``--resume`` alone would not find it, so the validation is finished."""
    cfg = tiny_finetuning(tmp_path / 'first')
    cfg.optim_wrapper.accumulative_counts = 1
    assert train(cfg, (SignalHook, 'after_val_iter', 1, 'SIGTERM')) == 75
    cfg.update(resume=True, load_from=find_resumable(tmp_path / 'first'))
    cfg.work_dir = str(tmp_path / 'second')
    assert train(cfg, (SignalHook, 'after_val_iter', 1, 'SIGTERM')) == 75
    last = content(find_resumable(tmp_path / 'second'))
    assert last['meta']['iter'] >= 3
    assert 'val/accuracy/top1' in last['message_hub']['log_scalars']


class StorageBackend(LocalBackend):
    """A folder that is called storage://."""

    root: Path

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in ('put', 'isfile', 'isdir', 'exists', 'remove', 'rmtree'):
            return found

        def mapped(*arguments):
            *others, path = arguments
            return found(*others, str(path).replace('storage:/', str(self.root)))

        return mapped


def test_what_is_left_on_other_storage_goes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(StorageBackend, 'root', tmp_path / 'storage', raising=False)
    for register in (register_backend, FileClient.register_backend):
        register('storage', StorageBackend, force=True, prefixes='storage')
    cfg = tiny_finetuning(tmp_path / 'run')
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.checkpoint.update(out_dir='storage://', save_best=None)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    assert train(cfg) == 0
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'latest.pth after' in log.read_text()
    names = {path.name for path in (tmp_path / 'storage' / 'run').iterdir()}
    assert names == {'epoch_1.pth'}


def test_saves_by_time(tmp_path):
    """What is left in the end goes, also a folder, as of sharded checkpoints."""
    (tmp_path / '60' / 'latest.pth').mkdir(parents=True)
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.checkpoint.update(interval=10, save_last=False, save_best=None)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    for minutes, count in ((1e-9, 2), (60, 0), (None, 0)):  # three iterations
        cfg.default_hooks.preemption.minutes = minutes
        cfg.work_dir = str(tmp_path / str(minutes))
        assert train(cfg) == 0
        (log,) = (tmp_path / str(minutes)).glob('*/*.log')
        assert log.read_text().count('latest.pth after') == count
    assert not (tmp_path / '60' / 'latest.pth').exists()
    assert (tmp_path / '1e-09' / 'latest.pth').exists()  # the run has no other


@pytest.mark.parametrize(
    'arguments', [[], ['--resume'], ['--resume', 'old.pth'], ['--resume=old.pth']]
)
@pytest.mark.parametrize('more', [[], ['--work-dir', 'a b']])
def test_command_continues_from_the_last_checkpoint(arguments, more, monkeypatch):
    """Not from the file that the run was resumed from."""
    monkeypatch.setattr(sys, 'argv', ['train.py', 'config.py', *arguments, *more])
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    expected = shlex.join(['python', 'train.py', 'config.py', *more, '--resume'])
    assert preemption._command() == expected


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(minutes=0), 'minutes must be a positive'),
        (dict(signals=['SIGNAL']), "such as SIGTERM, .* got 'SIGNAL'"),
        (dict(signals=['SIGKILL']), "a process can handle, got 'SIGKILL'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        PreemptionHook(**options)
