"""Measure which share of a pretraining run its measures take.

Trains a config and times, inside that run, the validations and the hooks that pictures,
probe, verdicts and report need.
"""

import argparse
import time
from collections.abc import Callable

from mmmixmim.benchmarking import machine
from mmmixmim.engine import (
    DiagnosisHook,
    OnlineProbeHook,
    ReconstructionHook,
    ReportHook,
)
from mmmixmim.runtime import (
    add_run_arguments,
    build_runner,
    load_config,
    one_line_errors,
    prepare_run,
)
from mmmixmim.validation import UserError

HOOKS = (DiagnosisHook, OnlineProbeHook, ReconstructionHook, ReportHook)
CALLS = ('before_train', 'after_train_iter', 'after_train')


class Stopwatch:
    """Seconds spent in the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable) -> Callable:
        """Return the function with its time added."""

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_run_arguments(parser)
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Train, and print the share."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    prepare_run(cfg, args.config, args.launcher, args.work_dir, args.local_rank)
    runner = build_runner(cfg)
    if runner._val_loop is None:
        raise UserError('The config measures nothing: it has no val_cfg.')
    validations, hooks, total = Stopwatch(), Stopwatch(), Stopwatch()
    loop = runner.val_loop
    loop.run = validations.wrap(loop.run)  # after_val_epoch of the hooks is inside
    for hook in runner.hooks:
        if isinstance(hook, HOOKS):
            for name in CALLS:
                setattr(hook, name, hooks.wrap(getattr(hook, name)))
    total.wrap(runner.train)()
    measures = validations.seconds + hooks.seconds
    training = total.seconds - measures
    print(
        f'\n{machine()}\nTraining {training:.1f} s, validations with their hooks '
        f'{validations.seconds:.2f} s, other hooks {hooks.seconds:.2f} s: measures '
        f'take {measures / training:.1%} of the training time.'
    )


if __name__ == '__main__':
    main()
