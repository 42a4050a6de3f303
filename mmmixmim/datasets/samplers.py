"""Batches of indices from any position of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from mmmixmim.validation import UserError

from .seeding import SAMPLE, SeededIndex


class ResumableBatchSampler(Sampler):
    """The batches of another batch sampler, from any position on.

    It skips batches by their indices, without loading them. Every index carries the key
    (seed, rank, iteration, place in the batch) of the random numbers of its sample.

    The other sampler must give the same batches for the same seed and epoch, as those
    of MMEngine, mmpretrain, mmdet and mmseg do.

    Args:
        batches: Batch sampler, with the attribute ``sampler``. It and its sampler get
            the epoch by ``set_epoch`` if they have it.
        endless: Whether the next epoch follows an epoch. Defaults to False: stop.
    """

    def __init__(self, batches: Sampler, endless: bool = False) -> None:
        self.batches = batches
        self.endless = endless
        self.start(seed=0, rank=0)

    def start(
        self, seed: int, rank: int, epoch: int = 0, iteration: int = 0, skip: int = 0
    ) -> None:
        """Set where the next iteration over the batches starts.

        Args:
            seed: Seed of the run, the same on all ranks.
            rank: Rank of this process.
            epoch: Number of the epoch, from 0. Defaults to 0.
            iteration: Number of the first batch that is not skipped, counted from the
                start of the run. Defaults to 0.
            skip: Number of batches to skip, counted from the start of the epoch.
                Defaults to 0.
        """
        self.position = seed, rank, epoch, iteration, skip

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        seed, rank, epoch, iteration, skip = self.position
        for batch in self._batches(epoch):
            if skip:
                skip -= 1
                continue
            yield [
                _seeded(index, (seed, rank, SAMPLE, iteration, place))
                for place, index in enumerate(batch)
            ]
            iteration += 1

    def _batches(self, epoch: int) -> Iterator[list[int]]:
        while True:
            for each in (self.batches, getattr(self.batches, 'sampler', None)):
                if hasattr(each, 'set_epoch'):
                    each.set_epoch(epoch)
            empty = True
            for batch in self.batches:
                empty = False
                yield batch
            if not self.endless:
                return
            if empty:
                raise UserError(
                    'The training data give no batch: set train_dataloader.batch_size '
                    'to at most the number of samples, or drop_last=False.'
                )
            epoch += 1

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'batches' not in vars(self):
            raise AttributeError(name)
        return getattr(self.batches, name)


def _seeded(index: int, key: tuple[int, ...]) -> SeededIndex:
    seeded = SeededIndex(index)
    seeded.key = key
    return seeded
