"""Random numbers as a function of seed, rank, iteration and sample."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

# What random numbers are drawn for. Each has streams of its own.
SAMPLE, STEP, EPOCH, VALIDATION = range(4)


def set_seeds(*key: int, devices: bool = True) -> None:
    """Seed Python, NumPy and PyTorch.

    Args:
        *key: Numbers from 0. Keys of the same length that differ in one of them give
            unrelated streams.
        devices: Whether to seed PyTorch's generators of all devices, or that of the
            CPU alone. Defaults to True.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    number = int.from_bytes(words.tobytes()[:8], 'little')
    random.seed(number)
    np.random.seed(words)
    if devices:
        torch.manual_seed(number)
    else:
        torch.default_generator.manual_seed(number)


class SeededIndex(int):
    """Index of a sample, with the key of its random numbers."""

    key: tuple[int, ...]


class SeededDataset(Dataset):
    """A map-style dataset that seeds its transforms before it loads a sample.

    Each :class:`SeededIndex` brings its key along, also to persistent workers. A plain
    int loads the sample without a seed. All attributes are those of the dataset.

    Args:
        dataset: A dataset with ``__getitem__`` and ``__len__``.
    """

    def __init__(self, dataset: Dataset) -> None:
        vars(self)['dataset'] = dataset

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, SeededIndex):
            set_seeds(*index.key, devices=False)
        return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        # PyTorch would load whole batches by __getitems__, without seeds; pickle asks
        # for attributes before there is a dataset.
        if name.startswith('__') or 'dataset' not in vars(self):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)
