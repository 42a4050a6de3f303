"""From an image file to the augmented crop in one go."""

from __future__ import annotations

import logging

import numpy as np
from mmcv.transforms.utils import cache_randomness
from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets import RandomResizedCrop

from mmmixmim.registry import TRANSFORMS
from mmmixmim.validation import UnreadableFileError, UserError

from .encoded_image import EncodedImage


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(RandomResizedCrop):
    """Load an image, crop it at random, resize the crop and flip it.

    Takes the place of ``LoadImageFromFile``, ``RandomResizedCrop`` (backend
    ``pillow``) and ``RandomFlip``, draws the same crops and is faster. A large JPEG
    is decoded at half, quarter or eighth size if the crop keeps ``reducing_gap``
    times the pixels that it is resized to. Colours, grey, 16 bits, palettes, alpha
    and EXIF orientation are handled as :class:`EncodedImage` says.

    **Required Keys:** ``img_path``

    **Added Keys:** ``img`` (BGR, uint8, (H, W, 3)), ``img_shape``, ``ori_shape``,
    ``flip``, ``flip_direction``

    Args:
        scale: Height and width of the result, or one number for both.
        crop_ratio_range: Smallest and largest area of the crop, over the image's.
            Defaults to (0.08, 1.0).
        aspect_ratio_range: Smallest and largest width over height of the crop.
            Defaults to (3 / 4, 4 / 3).
        max_attempts: Draws before a central crop is taken. Defaults to 10.
        interpolation: 'bicubic' or 'bilinear', both antialiased. Defaults to
            'bicubic'.
        flip_prob: Probability of a horizontal flip. Defaults to 0.
        reducing_gap: See above. Defaults to 2; pixels then differ by less than one
            level of 255 on average. None always decodes at full size, where they
            differ by 0.1 on average from those of Pillow alone.
        ignore_empty: Whether to warn of a file that cannot be read and return None,
            for which datasets then draw another. Defaults to False: it is an error.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        ValueError: If an argument is out of its range.
        OSError: If a file cannot be read.

    Source of the distribution: arXiv 1409.4842, section 6.
    """

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
                f"interpolation is {interpolation!r}, expected 'bicubic' or 'bilinear'."
            )
        if not 0 <= flip_prob <= 1:
            raise UserError(f'flip_prob is {flip_prob}, expected 0 to 1.')
        if reducing_gap is not None and reducing_gap < 1:
            raise UserError(
                f'reducing_gap is {reducing_gap}, expected at least 1, or None.'
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

    def transform(self, results: dict) -> dict | None:
        """Load, crop, resize and flip what ``results['img_path']`` names."""
        path = results['img_path']
        try:
            data = fileio.get(path, backend_args=self.backend_args)
            image = EncodedImage(data)
            # Only the shape is asked for.
            box = self.rand_crop_params(np.empty((*image.size, 0)))
            crop = image.resized_crop(
                box, tuple(self.scale), self.interpolation, self._reduction(box)
            )
        except Exception as error:
            message = f'The image {str(path)!r} cannot be read: {error}.'
            if self.ignore_empty:
                print_log(f'{message} Left out.', 'current', logging.WARNING)
                return None
            raise UnreadableFileError(
                f'{message} Repair or remove the file, or go on without it by '
                'ignore_empty=True of this transform: by --cfg-options, '
                'train_dataloader.dataset.pipeline.0.ignore_empty=True if it is the '
                'first one.'
            ) from error
        flip = self.rand_flip()
        # To BGR, and mirrored or not, in one copy.
        crop = crop.flip((0, 2) if flip else 0)
        results['img'] = crop.permute(1, 2, 0).numpy()
        results['img_shape'] = tuple(self.scale)
        results['ori_shape'] = image.size
        results['flip'] = flip
        results['flip_direction'] = 'horizontal' if flip else None
        return results

    @cache_randomness
    def rand_flip(self) -> bool:
        """Draw whether the crop is flipped."""
        return bool(np.random.rand() < self.flip_prob)

    def _reduction(self, box: tuple[int, int, int, int]) -> int:
        """How much smaller the file may be decoded."""
        if self.reducing_gap is None:
            return 1
        times = min(side / new for side, new in zip(box[2:], self.scale, strict=True))
        fitting = (each for each in (8, 4, 2) if each * self.reducing_gap <= times)
        return next(fitting, 1)

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, flip_prob={self.flip_prob}, '
            f'reducing_gap={self.reducing_gap}, ignore_empty={self.ignore_empty}, '
            f'backend_args={self.backend_args})'
        )
