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


def check_image(images: Tensor, in_channels: int, stride: int) -> None:
    """Refuse images whose channels or size the encoder cannot take."""
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise ValueError(
            f'Expected images of shape (B, {in_channels}, H, W), got '
            f'{tuple(images.shape)}. Set in_channels of the backbone, or the '
            'color_type of LoadImageFromFile, so that they agree.'
        )
    check_divisible(images.shape[2:], stride)


def check_divisible(size: Sequence[int], stride: int) -> None:
    """Refuse an image size (height, width) that the stride does not divide."""
    height, width = size
    if height < stride or width < stride or height % stride or width % stride:
        fitting = 'x'.join(str(max(1, round(s / stride)) * stride) for s in size)
        raise ValueError(
            f'The image size {height}x{width} is not divisible by the stride {stride} '
            f'of the encoder (patch_size * 2 ** (stages - 1)). Resize or crop the '
            f'images to {fitting}, or pad them with pad_size_divisor={stride} in the '
            'data preprocessor.'
        )


def check_probability(name: str, value: float) -> None:
    """Refuse a probability outside [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f'{name} must be at least 0 and below 1, got {value}.')


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Turn an int or (height, width) into a pair of positive ints."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair):
        raise ValueError(
            f'{name} must be a positive int or (height, width), got {value!r}.'
        )
    return pair
