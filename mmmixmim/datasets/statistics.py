"""Mean and standard deviation of each channel, measured in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from mmmixmim.runtime import write_json
from mmmixmim.text import plural
from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError

from .masks import check_mask_image
from .no_data import check_no_data, pixel_weights
from .readers import ArrayReader, Box, ImageReader, open_image
from .readers.base import UnreadableImageError, check_chosen, naming

# Pixels that are read at a time: 64 channels of float64 take 512 MB.
CHUNK = 1 << 20


@dataclass
class ChannelStatistics:
    """Statistics of each channel over all valid pixels of some images.

    Attributes:
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        minimum: Least value of each channel.
        maximum: Greatest value of each channel.
        pixels: Number of valid pixels.
        images: Number of images.
    """

    mean: list[float]
    std: list[float]
    minimum: list[float]
    maximum: list[float]
    pixels: int
    images: int

    def save(self, path: str | Path, given: bool = True) -> None:
        """Write a JSON file. Its folder is created if need be.

        Args:
            path: The file.
            given: Whether the user gave the path: a link stays one then. Defaults to
                True.
        """
        write_json(Path(path), asdict(self), given)

    @classmethod
    def load(cls, path: str | Path) -> ChannelStatistics:
        """Read a JSON file that :meth:`save` wrote.

        Raises:
            MissingFileError: If there is no such file.
            UserError: If it holds something else.
        """
        try:
            return cls(**json.loads(Path(path).expanduser().read_text()))
        except FileNotFoundError as error:
            raise MissingFileError(
                f'There is no file of channel statistics {str(path)!r}: write it with '
                '`python tools/measure_channels.py FOLDER --out FILE`.'
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(
                f'{path} holds no channel statistics: write it with `python '
                'tools/measure_channels.py FOLDER --out FILE`.'
            ) from error


def mean_and_std(
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    statistics: str | Path | None = None,
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and standard deviation of each channel, from numbers or from a file.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If they are given twice, or don't go together.
    """
    if statistics is not None:
        if mean is not None or std is not None:
            raise UserError(
                'Mean and standard deviation are given by statistics and again by '
                'mean or std: leave one of them out.'
            )
        measured = ChannelStatistics.load(statistics)
        mean, std = measured.mean, measured.std
    counts = [
        None if each is None else np.ndim(each) and len(each) for each in (mean, std)
    ]
    if counts[0] != counts[1] or counts[0] == 0:
        raise UserError(
            f'mean and std need one number per channel each, got {mean} and {std}.'
        )
    if std is not None and not min(std) > 0:
        raise UserError(f'std must be positive for each channel, got {list(std)}.')
    return mean, std


class RunningMoments:
    """Mean and variance in one pass, by merging the moments of chunks.

    Sums of squares of large numbers would cancel; merging means and squared deviations
    does not.

    Source: Chan, Golub, LeVeque, "Algorithms for computing the sample variance" (1983),
    equation 2.1.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = 0.0
        self.minimum, self.maximum = np.inf, -np.inf

    def update(self, values: np.ndarray) -> None:
        """Merge a chunk of values (N, C)."""
        if not len(values):
            return
        self.minimum = np.minimum(self.minimum, values.min(0))
        self.maximum = np.maximum(self.maximum, values.max(0))
        values = values.astype(np.float64)
        mean = values.mean(0)
        squares = np.square(values - mean).sum(0)
        count = self.count + len(values)
        step = mean - self.mean
        self.mean = self.mean + step * (len(values) / count)
        self.squares += squares + np.square(step) * (self.count * len(values) / count)
        self.count = count


def measure_channels(
    paths: Iterable[str | Path | np.ndarray],
    no_data: float | str | None = None,
    channels: Sequence[int] | None = None,
    masks: Iterable[str | Path | np.ndarray | None] | None = None,
    skip_unreadable: bool = False,
) -> ChannelStatistics:
    """Measure mean and standard deviation of each channel over valid pixels.

    Reads each file once, by rows, in float64.

    Args:
        paths: Image files, or arrays (H, W), (H, W, C) or (C, H, W).
        no_data: See :class:`LoadRasterCrop`. Defaults to None.
        channels: Which channels to take, counted from 0. Defaults to None: all.
        masks: Mask of each image, a file or an array; pixels of weight 0 don't count.
            Defaults to None.
        skip_unreadable: Whether to leave out damaged images, instead of raising.
            Damaged masks are an error. Defaults to False.

    Raises:
        UnreadableFileError: If a file cannot be read, or has other channels than the
            first one.
        UserError: If there is no valid pixel, a channel is constant, or the masks are
            not as many as the images.
    """
    no_data = check_no_data(no_data)
    if channels is not None and not channels:
        raise UserError('channels must name at least one channel, got none.')
    moments, images, first = RunningMoments(), 0, None
    for path, mask in _pairs(paths, masks):
        name = f'number {images}' if isinstance(path, np.ndarray) else path
        attempt = deepcopy(moments)
        with naming(name), nullcontext() if mask is None else _open(mask) as weights:
            try:
                with _open(path) as image:
                    first = first or (name, image.channels)
                    _check_same(image, first)
                    check_chosen(channels, image.channels)
                    _measure(attempt, image, weights, no_data, channels)
            except UnreadableImageError:  # of opening or reading, not of what is read
                if not skip_unreadable:
                    raise
                continue
        moments = attempt
        images += 1
    if not moments.count:
        raise UserError(
            f'{images} images have no valid pixel (no_data={no_data}): check no_data '
            'and the masks.'
        )
    _check_varies(moments, images, channels)
    return ChannelStatistics(
        moments.mean.tolist(),
        np.sqrt(moments.squares / moments.count).tolist(),
        np.asarray(moments.minimum, float).tolist(),
        np.asarray(moments.maximum, float).tolist(),
        int(moments.count),
        images,
    )


def _pairs(paths: Iterable, masks: Iterable | None) -> Iterator[tuple]:
    """Each image with its mask."""
    if masks is None:
        yield from ((path, None) for path in paths)
        return
    end = object()
    for number, pair in enumerate(zip_longest(paths, masks, fillvalue=end)):
        if pair[0] is end or pair[1] is end:
            fewer, more = ('mask', 'image')[:: -1 if pair[0] is end else 1]
            raise UserError(
                f'Expected a mask for each image, or None, got {plural(number, fewer)} '
                f'and more {more}s.'
            )
        yield pair


def _check_same(image: ImageReader, first: tuple[str | Path, int]) -> None:
    if image.channels != first[1]:
        raise UnreadableFileError(
            f'it has {image.channels} channels, {str(first[0])!r} has '
            f'{first[1]}; pretrain on images of one number of channels'
        )


def _check_varies(
    moments: RunningMoments, images: int, channels: Sequence[int] | None
) -> None:
    """Raise if a channel is constant."""
    # The deviation is not exactly 0 where the mean was rounded.
    constant = np.flatnonzero(moments.minimum == moments.maximum)
    if not len(constant):
        return
    taken = [*channels] if channels else [*range(len(moments.mean))]
    value, channel = moments.minimum[constant[0]], taken.pop(constant[0])
    way_out = 'set no_data'
    if taken:
        way_out += (
            f', or leave it out with channels={taken} in a config (docs/images.md; '
            'the command `mixmim` has no such option)'
        )
    raise UserError(
        f'Channel {channel} has the value {value:g} in all {moments.count} pixels of '
        f'{images} images, so there is nothing to learn: {way_out}.'
    )


def _open(image: str | Path | np.ndarray) -> ImageReader:
    if isinstance(image, np.ndarray):
        return ArrayReader(image)
    return open_image(image)


def _read_mask(mask: ImageReader, box: Box) -> np.ndarray:
    try:
        return mask.read(box)
    except UnreadableImageError as error:  # of the mask, so the image is not skipped
        raise UnreadableFileError(str(error)) from error


def _measure(
    moments: RunningMoments,
    image: ImageReader,
    mask: ImageReader | None,
    no_data: float | None,
    channels: Sequence[int] | None,
) -> None:
    """Add all valid pixels of an image, in bands of rows."""
    if mask is not None:
        check_mask_image(image, mask)
    height, width = image.size
    rows = max(1, CHUNK // width)
    for top in range(0, height, rows):
        box = (top, 0, min(rows, height - top), width)
        pixels = image.read(box)
        if channels is not None:
            pixels = pixels[..., list(channels)]
        weights = pixel_weights(pixels, no_data, mask and _read_mask(mask, box))
        moments.update(
            pixels.reshape(-1, pixels.shape[2])
            if weights is None
            else pixels[weights > 0]
        )
