"""DICOM by pydicom."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from mmmixmim.validation import UnreadableFileError

from .base import MAX_CHANNELS, ImageReader


class DicomReader(ImageReader):
    """A DICOM file: an image, or several frames, which are channels.

    Grey values are rescaled by slope and intercept if the file has them, as to
    Hounsfield units, and then are float32. They are those of each frame, of all frames
    or of the file, in this order.

    Args:
        source: A local file, or the contents of one.
    """

    def __init__(self, source: Path | BytesIO) -> None:
        with source.open('rb') if isinstance(source, Path) else source as stream:
            _check_not_deflated(stream)
            self.file = file = pydicom.dcmread(stream)
        frames = int(file.get('NumberOfFrames') or 1)
        self.samples = int(file.SamplesPerPixel)
        # (frames, 1, 1, 1) each
        self.slope, self.intercept = _rescaling(file, min(frames, MAX_CHANNELS))
        bits, signed = int(file.BitsAllocated), int(file.get('PixelRepresentation', 0))
        dtype = f'{"i" if signed else "u"}{max(bits // 8, 1)}'
        if (self.slope != 1).any() or (self.intercept != 0).any():
            dtype = np.float32
        super().__init__((file.Rows, file.Columns), frames * self.samples, dtype)
        self.at_once = self.size[0] * self.size[1]

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        pixels = self.file.pixel_array.reshape(-1, *self.size, self.samples)
        pixels = pixels[:, top : top + height, left : left + width]
        if self.dtype == np.float32:
            pixels = pixels.astype(np.float32) * self.slope + self.intercept
        return np.concatenate(list(pixels), axis=2)


def _check_not_deflated(stream: BinaryIO) -> None:
    """Raise if all that follows the file's meta information is compressed as one.

    pydicom would unpack it whatever its size, before a header can be checked.
    """
    read_preamble(stream, force=False)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get('TransferSyntaxUID') == DeflatedExplicitVRLittleEndian:
        raise UnreadableFileError(
            'it is deflated as a whole, which has no limit: store it uncompressed'
        )
    stream.seek(0)


def _rescaling(file: pydicom.Dataset, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of each frame, both float32 (frames, 1, 1, 1)."""
    shared = [file, *_transformations(file.get('SharedFunctionalGroupsSequence'))]
    each = _transformations(file.get('PerFrameFunctionalGroupsSequence'))
    found = []
    for frame in range(frames):
        values = [1.0, 0.0]
        for source in (*shared, *each[frame : frame + 1]):
            for i, name in enumerate(('RescaleSlope', 'RescaleIntercept')):
                value = source.get(name)
                if value not in (None, ''):  # a tag may be there and empty
                    values[i] = float(value)
        found.append(values)
    table = np.array(found, np.float32).reshape(frames, 2, 1, 1, 1)
    return table[:, 0], table[:, 1]


def _transformations(groups: Sequence | None) -> list[pydicom.Dataset]:
    """How each of these groups maps stored to real values, empty where it does not."""
    nothing = [pydicom.Dataset()]
    return [
        (group.get('PixelValueTransformationSequence') or nothing)[0]
        for group in groups or ()
    ]
