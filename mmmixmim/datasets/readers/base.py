"""What every reader offers: sizes from the header, pixels by boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmmixmim.validation import (
    MissingDependencyError,
    MissingFileError,
    UnreadableFileError,
)

Box = tuple[int, int, int, int]
MAX_CHANNELS = 64
MAX_BYTES = 2**32  # of pixels that are decoded at once
_WINDOW = 2048  # pixels of a side


def middle_of(size: tuple[int, int]) -> Box:
    """The middle of an image of this height and width, for large ones not all of it."""
    height, width = (min(side, _WINDOW) for side in size)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


class UnreadableImageError(UnreadableFileError):
    """An image cannot be read; the message names it."""


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name the image in errors of decoders, which raise anything."""
    try:
        yield
    except (MissingFileError, MissingDependencyError, UnreadableImageError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip('.')
        raise UnreadableImageError(
            f'The image {str(path)!r} cannot be read: {reason}.'
        ) from error


class ImageReader:
    """An image whose header has been read and whose pixels have not.

    A subclass reads the header in its constructor, and pixels in :meth:`_read`. Use it
    as a context manager, which closes the file.

    Args:
        size: Height and width in pixels.
        channels: Number of channels, 1 to 64.
        dtype: Type of the pixels: bool, integers of up to 32 bits, or floats.

    Raises:
        UnreadableFileError: If the image is empty, or has another number of channels
            or another type.
    """

    name: str | Path = 'of the dataset'
    at_once = 0  # pixels that are decoded at least, whatever the box; None: no decoding

    def __init__(self, size: tuple[int, int], channels: int, dtype) -> None:
        self.size = tuple(int(side) for side in size)
        self.channels = int(channels)
        self.dtype = np.dtype(dtype)
        if min(self.size) < 1:
            raise UnreadableFileError(f'it is empty: {self.size[0]}x{self.size[1]}')
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UnreadableFileError(
                f'it has {self.channels} channels, expected 1 to {MAX_CHANNELS}'
            )
        if self.dtype.kind not in 'buif' or (
            self.dtype.kind != 'f' and self.dtype.itemsize > 4
        ):
            raise UnreadableFileError(
                f'its pixels are {self.dtype}, expected integers of up to 32 bits or '
                'floats'
            )

    def read(self, box: Box | None = None) -> np.ndarray:
        """Read the pixels of a box.

        Args:
            box: Top, left, height and width in pixels. Defaults to None: all.

        Returns:
            (height, width, channels), channels in the file's order, RGB for colours.
            It may be a read-only view of the file.

        Raises:
            UnreadableImageError: If the pixels are damaged, or too many to decode at
                once (4 GiB).
        """
        box = (0, 0, *self.size) if box is None else box
        wanted = (*box[2:], self.channels)
        with naming(self.name):
            if self.at_once is not None:
                self._check_bytes(max(box[2] * box[3], self.at_once))
            pixels = self._read(*map(int, box))
            if pixels.shape != wanted:
                raise UnreadableFileError(
                    f'its pixels are {pixels.shape}, its header says {wanted}'
                )
        return pixels

    def check_channels(self, channels: Sequence[int] | None) -> None:
        """Raise unless the image has these channels, counted from 0; None: all."""
        if channels and not {*channels} <= {*range(self.channels)}:
            raise UnreadableFileError(
                f'it has the channels 0 to {self.channels - 1}, channels='
                f'{list(channels)} are asked for'
            )

    def close(self) -> None:
        """Close the file."""

    def _check_bytes(self, pixels: int) -> None:
        """A small file may claim to hold, or unpack to, any number of pixels."""
        size = pixels * self.channels * self.dtype.itemsize
        if size > MAX_BYTES:
            raise UnreadableFileError(
                f'{size / 2**30:.1f} GiB of pixels would be decoded at once, more than '
                f'{MAX_BYTES / 2**30:.0f}: cut it into images, or store it as a tiled '
                'TIFF and set max_crop'
            )

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        raise NotImplementedError

    def __enter__(self) -> ImageReader:
        return self

    def __exit__(self, *args) -> None:
        self.close()
