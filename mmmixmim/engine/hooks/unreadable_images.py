"""Name, count and list the training images that cannot be read."""

from __future__ import annotations

import math
from pathlib import Path

from mmengine.dist import (
    all_gather_object,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmmixmim.datasets import unreadable_images
from mmmixmim.datasets.samples import ENDLESS
from mmmixmim.log import warn
from mmmixmim.registry import HOOKS
from mmmixmim.runtime import replace_file
from mmmixmim.validation import UserError, check_share

STREAMED = 1000  # images that a stream counts by, which has no epochs


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Name, count and list training images that were replaced by other ones.

    Loading transforms with ``ignore_empty=True`` replace an image that cannot be read.
    This hook logs each such file once, whichever process met it, and lists all of them
    in ``unreadable_images.txt`` in the work folder: path, tab, reason.

    The run stops if the share of unreadable images exceeds ``max_share`` of the images
    drawn. While an epoch runs, it counts as drawn whole. A stream counts by thousands.

    :func:`mmmixmim.runtime.build_runner` adds this hook to every run.

    Args:
        max_share: Largest share of unreadable images, from 0 to 1. Defaults to 0.01.

    Raises:
        UserError: If ``max_share`` is out of range, or exceeded.
    """

    FILE = 'unreadable_images.txt'

    def __init__(self, max_share: float = 0.01) -> None:
        check_share('max_share', max_share)
        self.max_share = max_share

    def before_train(self, runner: Runner) -> None:
        """Start to count, and continue the list of a resumed run."""
        self._record = unreadable_images()
        self._position = self._record.watch()
        self._reasons: dict[str, str] = {}
        self._drawn = self._failed = 0
        # MMEngine's loop reads a stream again up to where it goes on.
        self._repeats = bool(runner.iter) and _is_stream(runner)
        file = Path(runner.work_dir, self.FILE)
        if file.exists() and is_main_process():
            if runner._resume:
                lines = file.read_text().splitlines()
                self._reasons = dict(
                    line.split('\t', 1) for line in lines if '\t' in line
                )
            else:
                file.unlink()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None
    ) -> None:
        """Leave out what was counted before the run was interrupted."""
        if self._repeats:
            _, self._position = self._record.since(self._position)
            self._repeats = False

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs=None
    ) -> None:
        """Count, and stop if too many images of this rank are unreadable."""
        batch = len(data_batch.get('data_samples') or data_batch['inputs'])
        self._drawn += batch
        new, self._position = self._record.since(self._position)
        if new:
            self._failed += len(new)
            self._add(runner, dict(new))
            # Other ranks are asked at the end of the epoch. Epochs count whole, also
            # the one for which workers load ahead.
            loader = runner.train_dataloader
            ahead = loader.num_workers * (loader.prefetch_factor or 0) * batch
            drawn = (self._drawn + ahead) * get_world_size()
            size = _size(loader.dataset)
            self._check(runner, self._failed, math.ceil(drawn / size) * size)

    def after_train_epoch(self, runner: Runner, metrics=None) -> None:
        """Count over all ranks."""
        counts = (self._drawn, self._failed, self._reasons)
        drawn, failed, reasons = zip(*all_gather_object(counts), strict=True)
        for each in reasons:
            self._add(runner, each)
        size = _size(runner.train_dataloader.dataset)
        self._check(runner, sum(failed), max(sum(drawn), size))

    def after_train(self, runner: Runner) -> None:
        """Say where the list is."""
        self._record.leave()
        if self._reasons:
            warn(
                f'{len(self._reasons)} images could not be read and were replaced by '
                f'others: see {Path(runner.work_dir, self.FILE)}.'
            )

    def _add(self, runner: Runner, reasons: dict[str, str]) -> None:
        new = {path: why for path, why in reasons.items() if path not in self._reasons}
        for path, why in new.items():
            warn(f'The image {path} cannot be read: {why}. It is replaced by another.')
        self._reasons |= new
        if new and is_main_process():
            self._write(runner)

    def _write(self, runner: Runner) -> None:
        file = self._list(runner)
        lines = (f'{path}\t{why}\n' for path, why in self._reasons.items())
        replace_file(file, ''.join(lines))

    def _list(self, runner: Runner) -> Path:
        """The list; another rank than the first, which has to stop, writes its own."""
        file = Path(runner.work_dir, self.FILE)
        if is_main_process():
            return file
        return file.with_stem(f'{file.stem}_rank{get_rank()}')

    def _check(self, runner: Runner, failed: int, images: int) -> None:
        if failed <= self.max_share * images:
            return
        self._write(runner)
        path, why = next(iter(self._reasons.items()))
        raise UserError(
            f'Too many images cannot be read: {failed} so far, more than '
            f'{self.max_share:.2%} of {images}. The first is {path}: {why}. All are '
            f'listed in {self._list(runner)}. Repair or remove them, or allow a larger '
            'share: --cfg-options default_hooks.unreadable_images.max_share=0.1'
        )


def _is_stream(runner: Runner) -> bool:
    return len(runner.train_dataloader.dataset) >= ENDLESS


def _size(dataset: Dataset) -> int:
    """Images of an epoch; of a stream, those that stand for one."""
    size = len(dataset)
    return STREAMED if size >= ENDLESS else size
