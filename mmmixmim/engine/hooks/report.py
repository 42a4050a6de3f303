"""Write the report of a run while it trains and when it ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mmengine.dataset import RepeatDataset
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmixmim.datasets import MixtureGroups
from mmmixmim.datasets.samples import ENDLESS
from mmmixmim.datasets.seeding import SeededDataset
from mmmixmim.evaluation.history import COUNTS
from mmmixmim.registry import HOOKS
from mmmixmim.runtime import write_json
from mmmixmim.validation import UserError
from mmmixmim.visualization import write_report

from ..wrappers import is_sharded


@HOOKS.register_module()
class ReportHook(Hook):
    """Write ``report.html`` into the work_dir at validations and after training.

    A report that cannot be written is a warning in the log; the training goes on.

    Args:
        max_share: Highest share of the training time that reports may take. At a
            validation where writing would exceed it, no report is written; at the end
            of training it always is. Defaults to 0.01.

    Raises:
        UserError: If the share is not positive.
    """

    priority = 'VERY_LOW'  # after the scalars and checkpoints are written

    def __init__(self, max_share: float = 0.01) -> None:
        if not max_share > 0:
            raise UserError(f'max_share must be positive, got {max_share!r}.')
        self.max_share = max_share
        self._training = False
        self._cost = 0.0
        self._since = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Note what is trained on what, and start to count the training time."""
        self._training = True
        self._note_counts(runner)
        self._since = time.monotonic()

    @master_only
    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Write the report so far, unless that takes too large a share."""
        elapsed = time.monotonic() - self._since
        if self._training and self._cost <= self.max_share * elapsed:
            self._write(runner)

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write the final report."""
        self._training = False
        path = self._write(runner)
        if path:
            runner.logger.info(f'Report of this run: {path}')

    @master_only
    def _note_counts(self, runner: Runner) -> None:
        validation = runner.val_loop
        counts = dict(
            started=int(time.time()),
            images=_length(runner.train_dataloader.dataset),
            held_out=_length(validation.dataloader.dataset) if validation else 0,
            processes=get_world_size(),
            processes_here=int(os.environ.get('LOCAL_WORLD_SIZE', get_world_size())),
        )
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            counts['iters_per_epoch'] = len(runner.train_loop.dataloader)
        if not is_sharded(runner):
            parameters = runner.model.parameters()
            counts['parameters'] = sum(each.numel() for each in parameters)
        try:
            write_json(Path(runner.log_dir, COUNTS), counts)
        except OSError as error:  # the report does without
            runner.logger.warning(f'{COUNTS} was not written: {error}')

    def _write(self, runner: Runner) -> str | None:
        start = time.monotonic()
        path = None
        try:
            path = str(write_report(runner.work_dir))
        except Exception as error:  # a report is not worth a training
            runner.logger.warning(f'The report was not written: {error}')
        self._since = time.monotonic()
        self._cost = self._since - start
        return path


def _length(dataset: object) -> int | None:
    """Number of images; None of a stream."""
    while isinstance(dataset, (SeededDataset, RepeatDataset)):
        dataset = dataset.dataset
    if isinstance(dataset, MixtureGroups):
        return len(dataset) * dataset.images
    try:
        length = len(dataset)
    except TypeError:
        return None
    return None if length >= ENDLESS else length
