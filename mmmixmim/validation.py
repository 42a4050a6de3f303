"""Errors that a user can correct, and the checks of arguments that raise them."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Sequence
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor

TRUST_VARIABLE = 'MMMIXMIM_TRUST_FILES'


class UserError(ValueError):
    """Something the user asked for or supplied cannot work.

    The message is one line: the value, what was expected, and how to fix it. Every
    tool prints it without a traceback.
    """


class StoppedRunError(UserError):
    """A run has stopped, and goes on once the user has corrected something.

    Args:
        correction: What happened and what to do about it. How a run goes on is added,
            and differs between the scripts and ``mixmim``.
    """

    def __init__(self, correction: str) -> None:
        super().__init__(correction)
        self.correction = correction

    def __str__(self) -> str:
        return f'{self.correction} Then continue with --resume.'


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named does not exist."""


class UnreadableFileError(UserError, OSError):
    """A file that the user named exists but cannot be read."""


class MissingDependencyError(UserError, ImportError):
    """A package that is needed is not installed."""


class RefusedFileError(UserError):
    """A file holds more than plain values and could run code."""


def is_trusted(path: str | Path) -> bool:
    """Whether the user trusts a local file, so that code in it may run.

    Args:
        path: A file or folder. It is trusted if the environment variable
            ``MMMIXMIM_TRUST_FILES`` names it or a folder above it, with symbolic links
            resolved. Several names are separated as those in ``PATH``.
    """
    names = filter(None, os.environ.get(TRUST_VARIABLE, '').split(os.pathsep))
    trusted = [Path(name).expanduser().resolve() for name in names]
    file = Path(path).expanduser().resolve()
    return any(file == each or each in file.parents for each in trusted)


def check_mask(mask: Tensor, images: int = 2) -> None:
    """Raise unless ``mask`` holds the owner of each cell, (1 or B, h, w).

    Args:
        mask: Numbers from 0 to ``images`` - 1, of any type.
        images: Number of images in a mixture.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 3:
        got = f'shape {tuple(mask.shape)}' if isinstance(mask, Tensor) else type(mask)
        raise UserError(
            f'A mask must be a tensor of shape (1, h, w) or (B, h, w), got {got}.'
        )
    if mask.dtype != torch.bool:
        odd = mask[~torch.isin(mask, torch.arange(images, device=mask.device))]
        if odd.numel():
            values = '1 where the partner shows and 0 elsewhere'
            if images > 2:
                values = f'the number of the image that shows, from 0 to {images - 1}'
            raise UserError(f'A mask holds {values}, got the value {odd[0].item()}.')


def check_image(images: Tensor, in_channels: int) -> None:
    """Raise unless ``images`` is (B, in_channels, H, W)."""
    if not isinstance(images, Tensor):
        raise UserError(
            f'Expected one tensor of images, got a {type(images).__name__}: set '
            'collate_fn of the dataloader to dict(type="default_collate"), and make '
            'one view of each image.'
        )
    if images.ndim != 4 or images.shape[1] != in_channels:
        raise UserError(
            f'Expected images of shape (B, {in_channels}, H, W), got '
            f'{tuple(images.shape)}. Set in_channels of the backbone to the channels '
            'of the images, or color_type of LoadImageFromFile to what the backbone '
            'takes; mean, std and to_rgb of the data preprocessor go with them.'
        )


def check_floats(images: Tensor) -> None:
    """Raise unless images are of a floating-point type, as normalised ones are."""
    if not images.is_floating_point():
        raise UserError(
            f'Expected images of a floating-point type, got {images.dtype}: normalise '
            'them by model.data_preprocessor(dict(inputs=images, data_samples=None))'
            "['inputs']."
        )


def check_image_size(
    size: tuple[int, int], stride: int, option: str | None = None
) -> None:
    """Raise unless ``stride`` divides both sides of images that are to be mixed.

    Args:
        size: Height and width in pixels.
        stride: Side of a cell in pixels.
        option: Name of the argument that sets the size. Defaults to None: it is that
            of the images.
    """
    if any(side < stride or side % stride for side in size):
        # Images can be cropped. img_size should not become smaller than they are.
        near = math.ceil if option else round
        fits = (str(max(1, near(side / stride)) * stride) for side in size)
        raise UserError(
            f'{option or "The image size"} {size[0]}x{size[1]} is not divisible by the '
            f'stride {stride} of the encoder, the side of the cells that are mixed: '
            f'{"choose" if option else "resize or crop the images to"}, for instance, '
            f'{"x".join(fits)}.'
        )


def check_positive_int(name: str, value: int) -> None:
    """Raise unless ``value`` is a positive int."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f'{name} must be a positive int, got {value!r}.')


def check_positive(name: str, value: float) -> None:
    """Raise unless ``value`` is a positive number."""
    if not isinstance(value, (int, float)) or not value > 0:
        raise UserError(f'{name} must be a positive number, got {value!r}.')


def check_int_between(name: str, value: int, low: int, high: int) -> None:
    """Raise unless ``value`` is an int from ``low`` to ``high``."""
    if type(value) is not int or not low <= value <= high:
        raise UserError(
            f'{name} must be an int between {low} and {high}, got {value!r}.'
        )


def check_share(name: str, value: float) -> None:
    """Raise unless ``value`` is a number in [0, 1]."""
    if not isinstance(value, Real) or not 0 <= value <= 1:
        raise UserError(f'{name} must be from 0 to 1, got {value!r}.')


def check_probability(name: str, value: float) -> None:
    """Raise unless ``value`` is a number in [0, 1)."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise UserError(f'{name} must be at least 0 and below 1, got {value!r}.')


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Turn an int or (height, width) into a pair of positive ints."""
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or not all(type(side) is int and side > 0 for side in pair):
        raise UserError(
            f'{name} must be a positive int or (height, width), got {value!r}.'
        )
    return pair


def renamed_arguments(**new_names: str) -> Callable:
    """Accept old names of keyword arguments, given as ``old='new'``.

    Raises:
        UserError: When the function is called with both names of an argument.
    """

    def decorate(function: Callable) -> Callable:
        names = list(inspect.signature(function).parameters)

        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            for old, new in new_names.items():
                if old not in kwargs:
                    continue
                if new in kwargs or new in names[: len(args)]:
                    raise UserError(
                        f'{old} is the old name of {new}, and both are given: leave '
                        f'{old} out.'
                    )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        wrapper.renamed = new_names
        return wrapper

    return decorate
