"""Python datasets and iterables, for training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import numpy as np
from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from mmmixmim.registry import DATASETS
from mmmixmim.validation import UserError

from .samples import ENDLESS, as_sample, build_pipeline

# Python datasets by the names that configs have for them: a config holds text.
_NAMED: dict[str, Sequence] = {}


@contextmanager
def named_dataset(name: str, dataset: Sequence) -> Iterator[None]:
    """Let configs of this process name a Python dataset.

    Args:
        name: What :class:`WrappedDataset` gets as ``dataset``.
        dataset: The dataset.
    """
    _NAMED[name] = dataset
    try:
        yield
    finally:
        del _NAMED[name]


class _OneType:
    """Mixin: the images of a process have one type, as those of a batch must."""

    _dtype = None

    def _check_type(self, result: dict, index: int) -> None:
        dtype = getattr(result.get('inputs'), 'dtype', None)
        self._dtype = self._dtype or dtype
        if dtype != self._dtype:
            raise UserError(
                f'Item {index} of the Python data gives an image of {dtype}, others '
                f'one of {self._dtype}: give all images the same type, such as float32.'
            )


@DATASETS.register_module()
class WrappedDataset(_OneType, Dataset):
    """A torch dataset, or a list of images, with a pipeline of transforms.

    Args:
        dataset: Anything with ``len`` and an index: a torchvision dataset, a list of
            arrays or of paths. See :func:`as_sample` for its items. Or the name that
            :func:`named_dataset` gave to one.
        pipeline: Transforms, of which the first is usually :class:`LoadRasterCrop`.
        part: 'train', all images but those held out, or 'held_out'. Defaults to
            'train'.
        held_out: Number of images that are held out. Which ones depends on the length
            of the dataset alone. Defaults to 0.

    Raises:
        UserError: If the dataset is empty, has no length or index, or is unknown by
            its name; if ``held_out`` leaves no image to train on, or some images are
            uint8 and others not.
    """

    MAX_REFETCH = 1000

    def __init__(
        self,
        dataset: Sequence | str,
        pipeline: Sequence[dict | Callable],
        part: str = 'train',
        held_out: int = 0,
    ) -> None:
        if isinstance(dataset, str):
            if dataset not in _NAMED:
                raise UserError(
                    f'The images of this config ({dataset}) came from Python, which a '
                    'config cannot hold: repeat the call of mmmixmim.pretrain that '
                    'wrote it. For other images: `mixmim reconstruct RUN --images '
                    'FOLDER`.'
                )
            dataset = _NAMED[dataset]
        if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
            raise UserError(
                f'{type(dataset).__name__} has no length or no index: wrap it as '
                'WrappedIterable.'
            )
        if not len(dataset):
            raise UserError(f'The {type(dataset).__name__} is empty.')
        if part not in ('train', 'held_out'):
            raise UserError(f"part must be 'train' or 'held_out', got {part!r}.")
        if type(held_out) is not int or not 0 <= held_out < len(dataset):
            raise UserError(
                f'held_out must be an int from 0 to {len(dataset) - 1}, to leave one '
                f'of the {len(dataset)} images to train on, got {held_out}.'
            )
        self.dataset = dataset
        order = np.random.default_rng(0).permutation(len(dataset))
        chosen = order[:held_out] if part == 'held_out' else order[held_out:]
        self.indices = np.sort(chosen)
        self.pipeline = build_pipeline(pipeline)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict:
        for step in range(self.MAX_REFETCH + 1):
            other = int(self.indices[(index + step) % len(self)])
            sample = as_sample(self.dataset[other]) | dict(sample_idx=other)
            result = self.pipeline(sample)
            if result is not None:  # else it cannot be read: try the next one
                self._check_type(result, other)
                return result
        raise UserError(f'None of {self.MAX_REFETCH} images after {index} is readable.')


@DATASETS.register_module()
class WrappedIterable(_OneType, IterableDataset):
    """An iterable of images, with a pipeline of transforms, without end.

    It starts again when it ends. Of n loader processes on all ranks together, process
    i takes the items i, i + n, i + 2 n, ..., in the order of the iterable: shuffle
    there. Each process reads all items, so use few processes if reading is slow. It
    needs an iteration-based loop, and ``sampler=None`` of the dataloader.

    Args:
        iterable: An iterable, or a function that returns one. It is started again each
            time, so no generator object. See :func:`as_sample` for its items.
        pipeline: Transforms, of which the first is usually :class:`LoadRasterCrop`.

    Raises:
        UserError: If it cannot be started again, yields nothing, or some images are
            uint8 and others not.
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
                    self._check_type(result, i)
                    taken += 1
                    yield result
            if not taken:
                raise UserError(
                    f'The iterable has no readable image for loader process {first} of '
                    f'{self.world_size * workers} in pass {epoch + 1}: use fewer '
                    'workers, or check its images.'
                )
