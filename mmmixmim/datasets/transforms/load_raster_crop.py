"""Load a random resized crop of an image of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms.utils import cache_randomness
from torch import Tensor

from mmmixmim.registry import TRANSFORMS
from mmmixmim.validation import (
    UnreadableFileError,
    check_positive_int,
    check_share,
)

from ..masks import check_mask_image
from ..no_data import check_no_data, pixel_weights
from ..readers import ArrayReader, Box, ImageReader, open_image
from ..readers.base import check_chosen
from .load_random_resized_crop import LoadRandomResizedCrop


@TRANSFORMS.register_module()
class LoadRasterCrop(LoadRandomResizedCrop):
    """Load a random crop of an image with any channels, resize it and flip it.

    As :class:`LoadRandomResizedCrop`, for 1 to 64 channels of 8 or 16 bits or float32,
    from all files that :func:`~mmmixmim.datasets.readers.open_image` reads. It draws
    the same crops. Large files are read by windows. Channels keep the order and values
    of the file, so ``to_rgb`` of the data preprocessor must be off. There are no colour
    operations: channels need not be colours.

    Pixels without data count nowhere: they are left out when the crop is resized, and
    become NaN, which :class:`~mmmixmim.models.RasterDataPreprocessor` turns into 0
    after normalisation. The loss does not count them either; for this, list
    ``pixel_weight`` in the ``algorithm_keys`` of ``PackInputs``. A crop that shows no
    valid pixel is drawn again.

    **Required Keys:** ``img_path``, maybe with ``img_bytes``, the file's contents; or
    ``img``, an array (H, W), (H, W, C) or (C, H, W). Optionally ``mask_path`` or
    ``mask``, the weights of the pixels: bool or int, where 0 is no data, or floats, not
    negative.

    **Added Keys:** ``img``, ((H, W, C), uint8 if the file is and there are no weights,
    else float32), ``img_shape``, ``ori_shape``, ``flip``, ``flip_direction``, and
    ``pixel_weight``, float32 tensor (H, W), if there are weights

    Args:
        *args: See :class:`LoadRandomResizedCrop`.
        channels: Which channels to take, counted from 0, in this order. Defaults to
            None: all.
        num_channels: How many channels each file must have. Defaults to None: any,
            though those of a batch must agree.
        no_data: Value of pixels without data, in any of their channels; or 'nan'.
            Defaults to None: all pixels are data, and NaN is an error.
        max_crop: Longest side in pixels of what is read. Of larger images a window of
            this size is drawn at random first (the middle one with ``max_attempts=0``),
            and ``crop_ratio_range`` is relative to it. Set it for scenes, of which a
            crop would otherwise be a large part, and keep their scale with a small
            multiple of ``scale``. Defaults to None: the image is the window.
        min_valid: Least share of the crop's pixels that must be valid, at least one
            pixel. Defaults to 0.
        vertical_flip_prob: Probability of a vertical flip, for images without an up
            and down. Defaults to 0.
        **kwargs: See :class:`LoadRandomResizedCrop`; ``reducing_gap`` has no effect.

    Raises:
        UserError: If an argument is out of range.
        UnreadableFileError: If a file cannot be read, has other channels, or has NaN
            where ``no_data`` is not set.
    """

    _methods_with_randomness = ['rand_crop_params', 'rand_flip']
    ATTEMPTS = 20
    # Pixels of an image that is still read whole to find valid ones.
    WHOLE = 1 << 24

    def __init__(
        self,
        *args,
        channels: Sequence[int] | None = None,
        num_channels: int | None = None,
        no_data: float | str | None = None,
        max_crop: int | None = None,
        min_valid: float = 0.0,
        vertical_flip_prob: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_share('vertical_flip_prob', vertical_flip_prob)
        check_share('min_valid', min_valid)
        if max_crop is not None:
            check_positive_int('max_crop', max_crop)
        self.max_crop = max_crop
        self.channels = None if channels is None else list(channels)
        self.num_channels = num_channels
        self.no_data = check_no_data(no_data)
        self.min_valid = min_valid
        self.vertical_flip_prob = vertical_flip_prob

    def _load(self, results: dict) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """Draw a crop with valid pixels, float32 or uint8."""
        with self._open(results, 'img') as image:
            self._check(image)
            masked = results.get('mask') is not None or results.get('mask_path')
            with self._open(results, 'mask') if masked else nullcontext() as mask:
                if masked:
                    check_mask_image(image, mask)
                crop, weight = self._draw(image, mask)
        results.pop('mask', None)  # the packer would keep the whole
        return crop, image.size, weight

    @cache_randomness
    def rand_vertical_flip(self) -> bool:
        """Draw whether to flip the crop upside down."""
        probability = self.vertical_flip_prob
        return bool(probability and np.random.rand() < probability)

    @cache_randomness
    def rand_window(self, size: tuple[int, int]) -> Box:
        """Draw the window of at most ``max_crop`` pixels that a crop comes from.

        Where crops are not drawn (``max_attempts=0``), it is the middle of the image.
        """
        sides = [min(side, self.max_crop or side) for side in size]
        spare = [whole - side for whole, side in zip(size, sides, strict=True)]
        if self.max_attempts == 0:
            corner = [each // 2 for each in spare]
        else:
            corner = [int(np.random.randint(each + 1)) if each else 0 for each in spare]
        return (*corner, *sides)

    def _open(self, results: dict, key: str) -> ImageReader:
        """Open the image or the mask."""
        if results.get(key) is not None:
            return ArrayReader(np.asarray(results[key]))
        path = results[f'{key}_path']
        return open_image(path, self.backend_args, results.get(f'{key}_bytes'))

    def _check(self, image: ImageReader) -> None:
        if self.num_channels not in (None, image.channels):
            raise UnreadableFileError(
                f'it has {image.channels} channels, expected {self.num_channels}: '
                f'leave it out, convert it, or train on images of {image.channels} '
                'channels (num_channels in a config)'
            )
        check_chosen(self.channels, image.channels)

    def _draw(
        self, image: ImageReader, mask: ImageReader | None
    ) -> tuple[Tensor, Tensor | None]:
        for attempt in range(self.ATTEMPTS + 1):
            window = self.rand_window(image.size)
            # The parent class reads nothing but the shape.
            box = self.rand_crop_params(np.empty((*window[2:], 0)))
            box = (window[0] + box[0], window[1] + box[1], *box[2:])
            if attempt == self.ATTEMPTS:  # as for crops: fall back to all there is
                if image.size[0] * image.size[1] > self.WHOLE:
                    break
                box = (0, 0, *image.size)
            pixels = self._read(image, box)
            weights = pixel_weights(
                pixels, self.no_data, None if mask is None else mask.read(box)
            )
            crop, weight = self._resize(pixels, weights)
            if weight is None:
                return crop, None
            valid = (weight > 0).float().mean().item()
            if valid > 0 and valid >= self.min_valid:
                return crop, weight
        raise UnreadableFileError(
            f'{self.ATTEMPTS} crops have too few valid pixels '
            f'(no_data={self.no_data}, min_valid={self.min_valid:g}): leave it out'
        )

    def _read(self, image: ImageReader, box: Box) -> np.ndarray:
        pixels = image.read(box)
        return pixels if self.channels is None else pixels[..., self.channels]

    def _resize(
        self, pixels: np.ndarray, weights: np.ndarray | None
    ) -> tuple[Tensor, Tensor | None]:
        """Resize with antialiasing over valid pixels only.

        With weights w the resized image is resize(x * v) / resize(v), where v is 1 at
        valid pixels (w > 0) and 0 elsewhere, so values without data leak nowhere. The
        resized weight is resize(w), and 0 where less than half of a pixel is valid.
        """
        size, mode = tuple(self.scale), self.interpolation
        if weights is None or (weights == 1).all():
            keep = weights is None and pixels.dtype == np.uint8
            crop = _as_tensor(pixels, np.uint8 if keep else np.float32)
            crop = F.interpolate(crop[None], size, mode=mode, antialias=True)[0]
            return crop, None if weights is None else torch.ones(size)
        weights = torch.from_numpy(weights)[None]  # (1, h, w)
        valid = weights > 0
        crop = torch.where(valid, _as_tensor(pixels, np.float32), 0)
        stack = torch.cat([crop, valid.float()])[None]
        *crop, share = F.interpolate(stack, size, mode=mode, antialias=True)[0]
        weight = F.interpolate(weights[None], size, mode='bilinear', antialias=True)
        weight = torch.where(share < 0.5, 0, weight[0, 0].clamp(min=0))
        crop = torch.stack(crop) / share
        return crop.masked_fill(weight == 0, torch.nan), weight

    def __repr__(self) -> str:
        return (
            f'{super().__repr__()[:-1]}, channels={self.channels}, '
            f'num_channels={self.num_channels}, no_data={self.no_data}, '
            f'max_crop={self.max_crop}, min_valid={self.min_valid}, '
            f'vertical_flip_prob={self.vertical_flip_prob})'
        )


def _as_tensor(pixels: np.ndarray, dtype: type) -> Tensor:
    """Copy pixels (H, W, C) to a tensor (C, H, W)."""
    pixels = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=dtype)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
