"""The training of a run: announced, started, interrupted and explained."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmmixmim.datasets import naming_lost_files
from mmmixmim.engine import ProgressLineHook
from mmmixmim.engine.hooks.preemption import Interrupted
from mmmixmim.runtime import (
    build_runner,
    is_out_of_memory,
    load_config,
    prepare_run,
    replace_file,
)
from mmmixmim.runtime.files import existing
from mmmixmim.validation import MissingFileError, StoppedRunError, UserError
from mmmixmim.visualization import write_report

from .machine import (
    CHECKPOINT_BYTES_PER_PARAMETER,
    GIB,
    Cost,
    busy_note,
    this_machine,
)
from .run import Run
from .settings import Choices

KEPT_CHECKPOINTS = 2


def check_images(cfg: Config, remedy: str) -> None:
    """Raise if the folder of the images to train on is gone, or a disk not mounted.

    Args:
        cfg: Config of a run.
        remedy: What to do about it.
    """
    root = cfg.train_dataloader.dataset.get('data_root')
    if root and not (os.path.isdir(root) and any(os.scandir(root))):
        raise MissingFileError(
            f'The images of this run are gone: the folder {root!r} does not exist or '
            f'is empty: {remedy}.'
        )


def train(run: Run) -> Runner:
    """Train what the config of a run says, or go on with it.

    Args:
        run: The run, locked.

    Raises:
        Interrupted: If the run was told to stop; everything is saved.
        UserError: If something fails that the user can correct.
    """
    with _explained(run):
        if note := busy_note(this_machine()):
            print(f'\nCareful: {": ".join(note)}.')
        print(f'\nTraining into {run.folder}. Its config is {run.config}.', flush=True)
        text = run.config.read_text()
        cfg = load_config(run.config)
        check_images(cfg, 'bring them back, then give the same command again')
        prepare_run(cfg, run.config, work_dir=str(run.folder))
        cfg.resume = (run.folder / 'last_checkpoint').is_file()
        cfg.runner_type = 'mmmixmim.QuietRunner'
        cfg.default_hooks.preemption.resume_by = run.invocation
        cfg.experiment_name = f'{run.command}-{run.folder.name}'
        runner = build_runner(cfg)
        replace_file(run.config, text)  # the runner has dumped it without its comments
        runner.register_hook(ProgressLineHook(epochs=run.settings['epochs']))
        if cfg.resume:
            print(f'Going on after {run.checkpoint.name}.', flush=True)
        try:
            with naming_lost_files():
                runner.train()
        except Interrupted:
            with suppress(UserError):  # before the first line of the log
                write_report(run.folder)  # the last one may name old checkpoints
            raise
    return runner


# Parts of a config that errors of a training name.
_ENTRIES = ('default_hooks.', 'optim_wrapper.', 'train_dataloader.')


@contextmanager
def _explained(run: Run) -> Iterator[None]:
    """Say in errors of a training what to do with the command."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        size = load_config(run.config).train_dataloader.batch_size
        advice = 'a smaller --model or --image-size'
        if size > 2:
            advice = f'--batch-size {max(2, size // 2)}'
        raise UserError(
            f'The GPU has run out of memory with batches of {size} images: choose '
            f'{advice}, and another --out; or end what else '
            'uses the GPU, and give the same command again.'
        ) from error
    except UserError as error:
        text = error.correction if isinstance(error, StoppedRunError) else str(error)
        if any(each in text for each in _ENTRIES):
            text += f' Here options are entries of {run.config}: change them there.'
        elif text == str(error):
            raise
        raise UserError(f'{text} Then give the same command again.') from error


class Stopped(KeyboardInterrupt):
    """Ctrl-C has stopped a run, and the same command or call goes on with it.

    Args:
        status: Exit status of the command.
    """

    def __init__(self, status: int) -> None:
        super().__init__('the same call goes on with the run')
        self.status = status


@contextmanager
def goes_on() -> Iterator[None]:
    """Let an interrupted run end as users expect; leave the process as it was.

    That is, its signals and how it starts others, which MMEngine changes.

    Raises:
        Stopped: Upon Ctrl-C. ``PreemptionHook`` has saved everything after the first
            one of a training.
        Interrupted: Upon another signal of ``PreemptionHook``.
    """
    handlers = {each: signal.getsignal(each) for each in signal.valid_signals()}
    method = multiprocessing.get_start_method(allow_none=True)
    try:
        yield
    except Interrupted as stop:
        if stop.received == signal.SIGINT:
            raise Stopped(stop.code) from None
        raise
    except KeyboardInterrupt:
        print(
            '\nInterrupted. The same command goes on after the last checkpoint.',
            flush=True,
        )
        raise Stopped(130) from None
    finally:
        multiprocessing.set_start_method(method, force=True)
        for each, handler in handlers.items():
            if signal.getsignal(each) != handler:
                signal.signal(each, handler)


def check_disk(folder: Path, parameters: int) -> None:
    """Raise if the checkpoints of a run do not fit on the disk.

    Args:
        folder: Folder of the run, which need not exist.
        parameters: Number of parameters of the model.
    """
    there = existing(folder)
    free = shutil.disk_usage(there).free
    # One more: the oldest is removed once the newest is written.
    count = KEPT_CHECKPOINTS + 1
    needs = parameters * CHECKPOINT_BYTES_PER_PARAMETER * count
    if needs > free:
        raise UserError(
            f'{count} checkpoints of {parameters:,} parameters need '
            f'{needs / GIB:.2f} GiB, and {str(there)!r} has {free / GIB:.2f} GiB '
            'free: choose another --out, or a smaller --model.'
        )


def announce(
    folder: Path, chosen: Choices, cost: Cost, time: str, dry_run: bool
) -> bool:
    """Print all settings with their reasons, and check the disk.

    Args:
        folder: Folder of the run.
        chosen: The settings.
        cost: What the model costs.
        time: How long it takes, '' if that is unknown.
        dry_run: Whether to stop here.

    Returns:
        Whether to go on.
    """
    print('\nSettings')
    width = max(len(name) for name in chosen)
    for name, choice in chosen.items():
        print(f'  {name:{width}}  {choice.value!s:8}  {choice.reason}')
    if time:
        print(f'  {time}')
    check_disk(folder, cost.parameters)
    if dry_run:
        print('\nThis was a dry run: nothing was trained.')
    return not dry_run
