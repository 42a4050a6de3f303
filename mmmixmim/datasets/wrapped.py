"""Datasets and iterables of Python, for training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count

from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mmmixmim.registry import DATASETS
from mmmixmim.validation import UserError

from .samples import ENDLESS, as_sample, build_pipeline


@DATASETS.register_module()
class WrappedDataset(Dataset):
    """A torch dataset, or a list of images, with a pipeline of transforms.

    Args:
        dataset: Anything with ``len`` and an index: a torchvision dataset, a list of
            arrays or of paths. See :func:`as_sample` for its items.
        pipeline: Transforms, of which the first is usually :class:`LoadRasterCrop`.

    Raises:
        UserError: If the dataset is empty or has neither.
    """

    MAX_REFETCH = 1000

    def __init__(self, dataset: Sequence, pipeline: Sequence[dict | Callable]) -> None:
        if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
            raise UserError(
                f'{type(dataset).__name__} has no length or no index: wrap it as '
                'WrappedIterable.'
            )
        if not len(dataset):
            raise UserError(f'The {type(dataset).__name__} is empty.')
        self.dataset = dataset
        self.pipeline = build_pipeline(pipeline)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        for step in range(self.MAX_REFETCH + 1):
            other = (index + step) % len(self)
            sample = as_sample(self.dataset[other]) | dict(sample_idx=other)
            result = self.pipeline(sample)
            if result is not None:  # else it cannot be read: try the next one
                return result
        raise UserError(f'None of {self.MAX_REFETCH} images after {index} is readable.')


@DATASETS.register_module()
class WrappedIterable(IterableDataset):
    """An iterable of images, with a pipeline of transforms, without end.

    It starts again when it ends. Of n loader processes on all ranks together, process
    i takes the items i, i + n, i + 2 n, ..., in the order of the iterable: shuffle
    there. Each process reads all items, so that an iterable that is slow should split
    itself. It takes an iteration-based loop, and ``sampler=None`` of the dataloader.

    Args:
        iterable: An iterable, or a function that returns one. It is started anew each
            time, so no generator object. See :func:`as_sample` for its items.
        pipeline: Transforms, of which the first is usually :class:`LoadRasterCrop`.

    Raises:
        UserError: If it cannot be started anew, or yields nothing.
    """

    def __init__(
        self,
        iterable: Iterable | Callable[[], Iterable],
        pipeline: Sequence[dict | Callable],
    ) -> None:
        if isinstance(iterable, Iterator):
            raise UserError(
                f'A {type(iterable).__name__} ends after one pass: pass the function '
                'that makes it.'
            )
        self.iterable = iterable
        self.pipeline = build_pipeline(pipeline)
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """More than any run takes; MMEngine's hooks ask for it."""
        return ENDLESS

    def __iter__(self) -> Iterator[dict]:
        worker = get_worker_info()
        workers = worker.num_workers if worker else 1
        first = self.rank * workers + (worker.id if worker else 0)
        for epoch in count():
            source = self.iterable() if callable(self.iterable) else self.iterable
            taken = 0
            for i, item in enumerate(source):
                if i % (self.world_size * workers) != first:
                    continue
                result = self.pipeline(as_sample(item))
                if result is not None:
                    taken += 1
                    yield result
            if not taken:
                raise UserError(
                    f'The iterable has no readable image for loader process {first} of '
                    f'{self.world_size * workers} in pass {epoch + 1}: use fewer '
                    'workers, or check its images.'
                )
