"""Checks of user input, shared by the models: one clear error each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def check_mask(mask: Tensor) -> None:
    """Refuse a cell mask of wrong shape or with values other than 0 and 1."""
    if not isinstance(mask, Tensor) or mask.ndim != 3:
        got = f'shape {tuple(mask.shape)}' if isinstance(mask, Tensor) else type(mask)
        raise ValueError(
            f'A mask must be a tensor of shape (1, h, w) or (B, h, w), got {got}.'
        )
    if mask.dtype != torch.bool:
        odd = mask[(mask != 0) & (mask != 1)]
        if odd.numel():
            raise ValueError(
                f'A mask holds 1 where the partner shows and 0 elsewhere, '
                f'got the value {odd[0].item()}.'
            )


def check_image(images: Tensor, in_channels: int) -> None:
    """Refuse images whose channels the encoder cannot take."""
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f'Expected images of shape (B, {in_channels}, H, W), got '
            f'{tuple(images.shape)}. Set in_channels of the backbone to the channels '
            'of the images, or color_type of LoadImageFromFile to what the backbone '
            'takes; mean, std and to_rgb of the data preprocessor go with them.'
        )


def check_image_size(size: tuple[int, int], stride: int) -> None:
    """Refuse images that cells of the stride don't divide: they cannot be mixed."""
    if not fits(size, stride):
        raise ValueError(
            f'The image size {size[0]}x{size[1]} is not divisible by the stride '
            f'{stride} of the encoder (patch_size * 2 ** (stages - 1)), which is the '
            'side of the cells that are mixed. Resize or crop the images, for instance '
            f'to {_nearest(size, stride)}.'
        )


def check_img_size(size: tuple[int, int], stride: int) -> None:
    """Refuse an ``img_size`` that the stride does not divide."""
    if not fits(size, stride):
        raise ValueError(
            f'img_size {size[0]}x{size[1]} is not divisible by the stride {stride} of '
            f'the encoder (patch_size * 2 ** (stages - 1)): choose, for instance, '
            f'{_nearest(size, stride)}.'
        )


def fits(size: tuple[int, int], stride: int) -> bool:
    """Whether the stride divides both sides of a size."""
    return all(side >= stride and side % stride == 0 for side in size)


def _nearest(size: tuple[int, int], stride: int) -> str:
    return 'x'.join(str(max(1, round(side / stride)) * stride) for side in size)


def check_positive_int(name: str, value: int) -> None:
    """Refuse what is no whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name} must be a positive int, got {value!r}.')


def check_probability(name: str, value: float) -> None:
    """Refuse a probability outside [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f'{name} must be at least 0 and below 1, got {value!r}.')


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Turn an int or (height, width) into a pair of positive ints."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        raise ValueError(
            f'{name} must be a positive int or (height, width), got {value!r}.'
        )
    return pair


def as_list(name: str, value, length: int, what: str) -> list:
    """Repeat a single value for each of ``length``, or check a list's length."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * length
    if len(values) != length:
        raise ValueError(
            f'{name} needs one entry for each of the {length} {what}, got '
            f'{len(values)}: {values}.'
        )
    return values
