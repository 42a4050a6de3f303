"""Load, crop, resize and flip an image in one transform."""

from __future__ import annotations

import os

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmengine import fileio
from mmpretrain.datasets import RandomResizedCrop
from torch import Tensor

from mmmixmim.registry import TRANSFORMS
from mmmixmim.validation import (
    MissingFileError,
    UnreadableFileError,
    UserError,
    check_share,
)

from ..readers import UnreadableImageError
from ..readers.base import naming
from ..unreadable import unreadable_images
from .encoded_image import EncodedImage


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(RandomResizedCrop):
    """Load an image, take a random crop, resize it and flip it at random.

    Replaces ``LoadImageFromFile``, ``RandomResizedCrop`` (backend ``pillow``) and
    ``RandomFlip``: it draws the same crops and is faster. JPEGs are decoded at 1/2,
    1/4 or 1/8 of their size as long as both sides of the reduced crop keep at least
    ``reducing_gap`` times the pixels of the result. See :class:`EncodedImage` for
    colour modes and EXIF orientation.

    **Required Keys:** ``img_path``; optionally ``img_bytes``, the file's contents

    **Added Keys:** ``img`` (BGR, uint8, (H, W, 3)), ``img_shape``, ``ori_shape``,
    ``flip``, ``flip_direction``

    Args:
        scale: Height and width of the result, or an int for both.
        crop_ratio_range: Range of the crop's area relative to the image's.
            Defaults to (0.08, 1.0).
        aspect_ratio_range: Range of the crop's aspect ratio, width / height.
            Defaults to (3 / 4, 4 / 3).
        max_attempts: Number of draws before falling back to a central crop.
            Defaults to 10.
        interpolation: 'bicubic' or 'bilinear', both with antialiasing. Defaults to
            'bicubic'.
        flip_prob: Probability of a horizontal flip. Defaults to 0.
        reducing_gap: Minimum oversampling of reduced JPEGs, as in Pillow. Defaults
            to 2: the mean error against full decoding is below 1 of 255 levels. None
            always decodes at full size. See docs/performance.md.
        ignore_empty: Whether to record unreadable files and return None, upon which
            datasets load another sample, see
            :class:`~mmmixmim.engine.UnreadableImagesHook`. Our training recipes set it.
            Defaults to False: raise, as evaluation must.
        backend_args: Arguments of MMEngine's file backend. Defaults to None.

    Raises:
        UserError: If an argument is out of range.
        UnreadableFileError: If a file cannot be read.

    Source: the crops of Inception, https://arxiv.org/abs/1409.4842, section 6.
    """

    # A list of our own: mmcv would add to mmpretrain's, which names methods twice.
    _methods_with_randomness = ['rand_crop_params']

    def __init__(
        self,
        scale: int | tuple[int, int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        flip_prob: float = 0.0,
        reducing_gap: float | None = 2.0,
        ignore_empty: bool = False,
        backend_args: dict | None = None,
    ) -> None:
        if interpolation not in ('bicubic', 'bilinear'):
            raise UserError(
                f"interpolation must be 'bicubic' or 'bilinear', got {interpolation!r}."
            )
        check_share('flip_prob', flip_prob)
        if reducing_gap is not None and reducing_gap < 1:
            raise UserError(
                f'reducing_gap must be at least 1 or None, got {reducing_gap}.'
            )
        super().__init__(
            scale,
            crop_ratio_range,
            aspect_ratio_range,
            max_attempts,
            interpolation,
            backend='torch',
        )
        self.flip_prob = flip_prob
        self.reducing_gap = reducing_gap
        self.ignore_empty = ignore_empty
        self.backend_args = backend_args
        self._record = unreadable_images()

    def transform(self, results: dict) -> dict | None:
        """Load a crop of the image, resize and flip it."""
        path = results.get('img_path') or 'of the dataset'
        try:
            with self._record.reading(path), naming(path):
                crop, size, weight = self._load(results)
        except (MissingFileError, UnreadableImageError) as error:
            if self.ignore_empty:
                self._record.add(path, error)
                return None
            raise UnreadableFileError(
                f'{error} Repair or remove the file. In training, ignore_empty=True of '
                f'{type(self).__name__} skips such files.'
            ) from error
        horizontal, vertical = self.rand_flip(), self.rand_vertical_flip()
        axes = [-1] * horizontal + [-2] * vertical  # of the crop and of its weights
        results['img'] = crop.flip(axes).permute(1, 2, 0).numpy()
        results['img_shape'] = tuple(self.scale)
        results['ori_shape'] = size
        results['flip'] = bool(axes)
        directions = (None, 'horizontal', 'vertical', 'diagonal')
        results['flip_direction'] = directions[horizontal + 2 * vertical]
        if weight is not None:
            results['pixel_weight'] = weight.flip(axes)
        return results

    def _load(self, results: dict) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """Crop (C, H, W), size of the image, and weights (H, W) of the pixels."""
        data = results.get('img_bytes')
        if data is None:
            data = self._contents(results['img_path'])
        image = EncodedImage(data)
        # The parent class reads nothing but the shape.
        box = self.rand_crop_params(np.empty((*image.size, 0)))
        size = tuple(self.scale)
        crop = image.resized_crop(box, size, self.interpolation, self._reduction(box))
        return crop.flip(0), image.size, None  # RGB to BGR

    def _contents(self, path: str) -> bytes:
        local = self.backend_args is None and '://' not in str(path)
        if local and not os.path.isfile(path) and os.path.exists(path):
            # Reading a pipe would wait for ever.
            raise UnreadableFileError('it is no regular file')
        return fileio.get(path, backend_args=self.backend_args)

    def rand_vertical_flip(self) -> bool:
        """Crops of pictures are not turned upside down."""
        return False

    @cache_randomness
    def rand_flip(self) -> bool:
        """Draw whether to flip the crop."""
        return bool(np.random.rand() < self.flip_prob)

    def _reduction(self, box: tuple[int, int, int, int]) -> int:
        """Largest factor by which decoding may shrink the image."""
        if self.reducing_gap is None:
            return 1
        shrink = min(old / new for old, new in zip(box[2:], self.scale, strict=True))
        factors = (each for each in (8, 4, 2) if each * self.reducing_gap <= shrink)
        return next(factors, 1)

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, flip_prob={self.flip_prob}, '
            f'reducing_gap={self.reducing_gap}, ignore_empty={self.ignore_empty}, '
            f'backend_args={self.backend_args})'
        )
