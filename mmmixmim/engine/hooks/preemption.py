"""Save between epochs: by time, and when the run is told to stop."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from multiprocessing import resource_tracker
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmmixmim.checkpoint.resumable import LATEST
from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError, check_positive

from ..loops import ResumableEpochLoop, ResumableIterLoop
from ..wrappers import accumulated
from .safe_checkpoint import SafeCheckpointHook

INTERRUPTED = 75  # exit status, EX_TEMPFAIL of sysexits.h: try again later


class Interrupted(SystemExit):
    """A run was told to stop, and is saved.

    Args:
        received: The signal; None if another process received it.
    """

    def __init__(self, received: signal.Signals | None) -> None:
        super().__init__(INTERRUPTED)
        self.received = received


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save every few minutes, and save and exit with status 75 upon a signal.

    All processes agree, at the end of an iteration that updated the weights. The file
    is ``latest.pth``, and is removed when the training ends. A validation is finished
    first, unless a checkpoint of the same weights exists already and the training loop
    would repeat it.

    Args:
        minutes: Save if the last checkpoint is older. Defaults to 30. None turns it
            off.
        signals: Names of the signals. In a single process a second SIGINT stops at
            once. Defaults to SIGTERM and SIGINT.
        resume_by: Command that continues the run, for the log and the report. Defaults
            to None: this command with ``--resume``.

    Raises:
        UserError: If ``minutes`` is not positive, or a signal is unknown or is SIGKILL
            or SIGSTOP.
    """

    priority = 'LOWEST'  # after all that a checkpoint holds

    def __init__(
        self,
        minutes: float | None = 30,
        signals: Sequence[str] = ('SIGTERM', 'SIGINT'),
        resume_by: str | None = None,
    ) -> None:
        if minutes is not None:
            check_positive('minutes', minutes)
        for name in signals:
            if name not in {*signal.Signals.__members__} - {'SIGKILL', 'SIGSTOP'}:
                raise UserError(
                    'signals must be names such as SIGTERM, of signals that a process '
                    f'can handle, got {name!r}.'
                )
        self.minutes = minutes
        self.signals = [signal.Signals[name] for name in signals]
        self.resume_by = resume_by
        self._checkpoints = self._received = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals."""
        hooks = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
        loops = ResumableEpochLoop, IterBasedTrainLoop
        if not hooks or not isinstance(runner.train_loop, loops):
            self._checkpoints = None
            runner.logger.warning(
                'PreemptionHook is off: it needs SafeCheckpointHook as '
                'default_hooks.checkpoint, and ResumableEpochLoop, ResumableIterLoop '
                'or IterBasedTrainLoop as train_cfg, to save in the middle of an epoch.'
            )
            return
        self._checkpoints = hooks[0]
        self._saved = hooks[0].saved_iter, time.monotonic()
        main = threading.current_thread() is threading.main_thread()
        signals = self.signals if main else []  # Python allows no other thread
        self._before = {each: signal.signal(each, self._notice) for each in signals}
        keep = signal.SIGTERM in signals and hasattr(signal, 'sigwaitinfo')  # no macOS
        parent = os.getpid() if keep else None
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loader = loop.dataloader
                loader.worker_init_fn = partial(_detach, loader.worker_init_fn, parent)
                if parent:
                    start = partial(_start_workers, loader, loader._get_iterator)
                    loader._get_iterator = start

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Save, and stop, if one of the processes is to."""
        if self._checkpoints is None or not accumulated(runner):
            return
        due = torch.tensor(
            [self._is_due(), self._received is not None], dtype=torch.int
        )
        if get_world_size() > 1:
            all_reduce(due, 'max')
        save, stop = due.tolist()
        if (save or stop) and self._checkpoints.saved_iter != runner.iter + 1:
            path = self._checkpoints.save_now(runner, LATEST)
            runner.logger.info(f'Saved {path} after {runner.iter + 1} iterations')
        if stop:
            self._stop(runner)

    def after_val_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Stop if the checkpoint is there already, and the validation is repeated."""
        # Processes may have different numbers of batches, so they cannot agree here.
        alone = self._received is not None and get_world_size() == 1
        loops = ResumableEpochLoop, ResumableIterLoop
        repeated = alone and isinstance(runner.train_loop, loops)
        if repeated and self._checkpoints.saved_iter == runner.iter:
            self._stop(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave signals to others, and remove what nobody needs any more."""
        if self._checkpoints is None:
            return
        for each, handler in self._before.items():
            signal.signal(each, handler)
        if Path(str(self._checkpoints.last_ckpt)).name != LATEST:
            self._checkpoints.remove_checkpoint(LATEST)

    def _notice(self, number: int, frame) -> None:
        self._received = signal.Signals(number)
        # Launchers pass a signal on that the terminal sends to all processes anyway.
        if number == signal.SIGINT and get_world_size() == 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _is_due(self) -> bool:
        if self._saved[0] != self._checkpoints.saved_iter:
            self._saved = self._checkpoints.saved_iter, time.monotonic()
        if self.minutes is None or not is_main_process():
            return False
        return time.monotonic() - self._saved[1] >= 60 * self.minutes

    def _stop(self, runner: Runner) -> None:
        received = self._received.name if self._received else 'a signal to another rank'
        runner.logger.warning(
            f'Stopped by {received}; everything is saved. To continue: '
            f'{self.resume_by or _command()}'
        )
        raise Interrupted(self._received)


def _start_workers(loader: DataLoader, start: Callable) -> Iterator:
    """Start workers out of reach of SIGTERM: a process inherits what is blocked."""
    context = loader.multiprocessing_context or multiprocessing
    if context.get_start_method() != 'fork':
        resource_tracker.ensure_running()  # else Python starts it now, and unblocks
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _detach(init: Callable | None, parent: int | None, worker: int) -> None:
    """Initialise a worker out of reach of signals that stop the run.

    Ctrl-C goes to the process group, SIGTERM of schedulers often to all processes.

    Args:
        init: The user's function, if there is one.
        parent: The process whose SIGTERM alone ends the worker. None: that of any.
        worker: Number of the worker.
    """
    os.setsid()
    if parent:
        # Not all inherit it: a server of forks may be older than the run.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await, args=[parent], daemon=True).start()
    if init is not None:
        init(worker)


def _await(parent: int) -> None:
    """End this process upon SIGTERM of ``parent``, as PyTorch's workers do."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def _command() -> str:
    """The command that continues this run, from its last checkpoint."""
    arguments = [
        each
        for before, each in pairwise(['', *sys.argv])
        # Nor the file after it, from which this run has continued.
        if not each.startswith('--resume')
        and (before != '--resume' or each.startswith('-'))
    ]
    arguments.append('--resume')
    starter = 'srun python' if 'SLURM_PROCID' in os.environ else 'python'
    if 'LOCAL_WORLD_SIZE' in os.environ:
        starter = f'torchrun --nproc-per-node {os.environ["LOCAL_WORLD_SIZE"]}'
    return f'{starter} {shlex.join(arguments)}'
