"""Show the progress of a run in one line of a terminal."""

from __future__ import annotations

import shutil
import sys
import time

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmixmim.registry import HOOKS
from mmmixmim.text import duration

_SHOWN = {'reconstruction/loss': 'held-out loss', 'accuracy/top1': 'accuracy'}


@HOOKS.register_module()
class ProgressLineHook(Hook):
    """Print epoch, loss, last validation, images per second and the time left.

    A terminal gets one line that is rewritten. Anything else gets a line every
    ``interval`` seconds and one at the end of the training. Images per second are the
    mean of the whole training since its last start, with validations and pauses; the
    report has the median of the iterations.

    Args:
        interval: Seconds between lines where there is no terminal. Defaults to 10.
        epochs: Number of epochs, for a loop that counts iterations. Defaults to None:
            that of the runner.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: float = 10.0, epochs: int | None = None) -> None:
        self.interval = interval
        self.epochs = epochs
        self.live = sys.stdout.isatty()
        self.validation = ''
        self.images = 0
        self.started = self.printed = 0.0
        self.first_iter = 0

    def before_train(self, runner: Runner) -> None:
        """A resumed run counts from where it goes on."""
        self.started = 0.0
        self.first_iter = runner.iter

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Start the clock, after a stream was read up to where it goes on."""
        if not self.started:
            self.started = self.printed = time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """Count the images and show the line."""
        self.images += len(data_batch['inputs']) * get_world_size()
        done, now = runner.iter + 1, time.monotonic()
        due = now - self.printed > (0.1 if self.live else self.interval)
        if due and done < runner.max_iters and is_main_process():
            self._print(self._line(runner, done, now))
            self.printed = now

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Keep the result for the line."""
        for name, shown in _SHOWN.items():
            if name in (metrics or {}):
                self.validation = f'{shown} {metrics[name]:.4g}'

    def after_train(self, runner: Runner) -> None:
        """Show the last line and leave it there."""
        if is_main_process() and self.images:
            self._print(self._line(runner, runner.iter, time.monotonic()))
            if self.live:
                print(flush=True)

    def _line(self, runner: Runner, done: int, now: float) -> str:
        epochs = self.epochs or runner.max_epochs
        per_epoch = max(1, runner.max_iters // epochs)
        epoch = min(epochs, (done - 1) // per_epoch + 1)
        passed = max(now - self.started, 1e-9)
        left = passed / (done - self.first_iter) * (runner.max_iters - done)
        loss = runner.message_hub.get_scalar('train/loss').mean(per_epoch)
        parts = [
            f'epoch {epoch}/{epochs}',
            f'{done / runner.max_iters:4.0%}',
            f'loss {loss:.4f}',
            self.validation,
            f'{self.images / passed:.0f} images/s',
            f'{duration(left)} left' if left else f'took {duration(passed)}',
        ]
        return '  '.join(part for part in parts if part)

    def _print(self, line: str) -> None:
        if not self.live:
            print(line, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f'\r{line[:width]}\x1b[K', end='', flush=True)
