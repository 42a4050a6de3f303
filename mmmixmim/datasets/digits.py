"""The handwritten digits bundled with scikit-learn."""

from __future__ import annotations

import numpy as np
from mmpretrain.datasets import BaseDataset
from PIL import Image

from mmmixmim.registry import DATASETS
from mmmixmim.validation import (
    MissingDependencyError,
    UserError,
    check_int_between,
    check_positive_int,
)

from .subsets import sample_per_class


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 grayscale images of 8x8 pixels in ten classes, without a download.

    Like mmpretrain's CIFAR datasets, it returns decoded images, so pipelines need
    no loading step. Samples hold ``img``, uint8 (8, 8) in [0, 255], and
    ``gt_label``.

    The split is fixed: within each class, the first three of every ten images in
    file order are test images.

    Args:
        split: 'train' (1,248 images) or 'test' (549 images). Defaults to 'train'.
        samples_per_class: Size of a random class-balanced subset. Defaults to
            None: use all images.
        seed: Seed of the subset. Defaults to 0.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``.

    Raises:
        UserError: If ``split`` is unknown, or a class has fewer images than
            ``samples_per_class``.
        MissingDependencyError: If scikit-learn is not installed.

    Source: ``sklearn.datasets.load_digits``, the test set of UCI's "Optical
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
        """Return the image and label of each sample in the split."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingDependencyError(
                'The Digits dataset needs scikit-learn, which is not installed: '
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


@DATASETS.register_module()
class ScatteredDigits(Digits):
    """The digits at random places, in random sizes, angles, contrasts and noise.

    They are far harder to tell apart for a linear classifier than :class:`Digits`, and
    need no download either. Each image is drawn once; the same arguments give the same
    images. Samples hold ``img``, uint8 (img_size, img_size, 3), three times the same
    grey, and ``gt_label``.

    A digit covers 60 to 95 % of the image's side, turned by at most 15 degrees. Digits
    of the two splits are different ones.

    Args:
        *args: See :class:`Digits`.
        img_size: Side of the images in pixels, at least 16. Defaults to 32.
        draws: Number of images of each digit. Defaults to 1.
        **kwargs: See :class:`Digits`.

    Raises:
        UserError: If ``img_size`` or ``draws`` is out of range, and as for
            :class:`Digits`.
    """

    ANGLE = 15  # degrees
    NOISE = 8  # standard deviation in grey levels

    def __init__(self, *args, img_size: int = 32, draws: int = 1, **kwargs) -> None:
        check_int_between('img_size', img_size, 16, 1024)
        check_positive_int('draws', draws)
        self.img_size = img_size
        self.draws = draws
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the images."""
        samples = super().load_data_list()
        split = self.SPLITS.index(self.split)
        return [
            dict(
                img=self._draw(sample['img'], np.random.default_rng([split, draw, i])),
                gt_label=sample['gt_label'],
            )
            for draw in range(self.draws)
            for i, sample in enumerate(samples)
        ]

    def _draw(self, digit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = self.img_size
        side = int(rng.integers(round(0.6 * size), round(0.95 * size) + 1))
        picture = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
        angle = rng.uniform(-self.ANGLE, self.ANGLE)
        picture = picture.rotate(angle, Image.Resampling.BICUBIC)
        canvas = Image.new('L', (size, size))
        left, top = rng.integers(0, size - side + 1, 2)
        canvas.paste(picture, (int(left), int(top)))
        dark, bright = rng.integers(0, 90), rng.integers(150, 256)
        pixels = dark + (bright - dark) * (np.asarray(canvas) / 255)
        pixels += rng.normal(0, self.NOISE, pixels.shape)
        grey = np.clip(pixels, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
