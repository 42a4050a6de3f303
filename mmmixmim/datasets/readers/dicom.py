"""DICOM by pydicom."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom

from .base import ImageReader


class DicomReader(ImageReader):
    """A DICOM file: an image, or several frames, which are channels.

    Grey values are rescaled by the file's slope and intercept if it has them, as to
    Hounsfield units, and then are float32.

    Args:
        source: A local file, or the contents of one.
    """

    def __init__(self, source: Path | BytesIO) -> None:
        self.file = file = pydicom.dcmread(source)
        frames = int(file.get('NumberOfFrames') or 1)
        self.samples = int(file.SamplesPerPixel)
        # A tag may be there and empty.
        slope, intercept = (file.get(f'Rescale{x}') for x in ('Slope', 'Intercept'))
        self.slope = 1.0 if slope in (None, '') else float(slope)
        self.intercept = float(intercept or 0)
        bits, signed = int(file.BitsAllocated), int(file.get('PixelRepresentation', 0))
        dtype = f'{"i" if signed else "u"}{max(bits // 8, 1)}'
        if (self.slope, self.intercept) != (1, 0):
            dtype = np.float32
        super().__init__((file.Rows, file.Columns), frames * self.samples, dtype)
        self.at_once = self.size[0] * self.size[1]

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        pixels = self.file.pixel_array.reshape(-1, *self.size, self.samples)
        pixels = pixels[:, top : top + height, left : left + width]
        pixels = np.concatenate(list(pixels), axis=2)
        if self.dtype == np.float32:
            return pixels * np.float32(self.slope) + np.float32(self.intercept)
        return pixels
