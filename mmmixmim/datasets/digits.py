"""The handwritten digits that scikit-learn carries inside its package."""

from __future__ import annotations

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmmixmim.registry import DATASETS
from mmmixmim.validation import MissingDependencyError, UserError

from .subsets import sample_per_class


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 grey images of 8x8 pixels in ten classes; nothing is downloaded.

    Like mmpretrain's CIFAR datasets it gives the image itself, so pipelines
    need no loading step: ``img``, uint8 (8, 8) from 0 to 255, and ``gt_label``.

    The split is fixed: of each class, in file order, the first three of every
    ten images are for testing.

    Args:
        split: 'train' (1,248 images) or 'test' (549). Defaults to 'train'.
        samples_per_class: Number of images to keep of each class, drawn at
            random. Defaults to None: all of them.
        seed: Seed of that draw. Defaults to 0.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, as ``pipeline``.

    Source: scikit-learn's ``load_digits``, the test part of UCI's "Optical
    Recognition of Handwritten Digits".
    """

    METAINFO = dict(classes=tuple('0123456789'))
    SPLITS = ('train', 'test')

    def __init__(
        self,
        split: str = 'train',
        samples_per_class: int | None = None,
        seed: int = 0,
        **kwargs,
    ) -> None:
        if split not in self.SPLITS:
            raise UserError(f'split must be one of {self.SPLITS}, got {split!r}.')
        self.split = split
        self.samples_per_class = samples_per_class
        self.seed = seed
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """List images and labels of the split."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingDependencyError(
                'The digits come with scikit-learn, which is not installed: '
                'run `pip install scikit-learn`.'
            ) from error
        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        indices = self._split_indices(digits.target)
        if self.samples_per_class is not None:
            labels = digits.target[indices]
            indices = indices[
                sample_per_class(labels, self.samples_per_class, self.seed)
            ]
        return [dict(img=images[i], gt_label=int(digits.target[i])) for i in indices]

    def _split_indices(self, labels: np.ndarray) -> np.ndarray:
        is_test = np.zeros(len(labels), dtype=bool)
        for label in range(10):
            members = np.flatnonzero(labels == label)
            is_test[members[np.arange(len(members)) % 10 < 3]] = True
        return np.flatnonzero(is_test == (self.split == 'test'))
