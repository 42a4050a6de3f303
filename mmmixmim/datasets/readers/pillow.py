"""Everything that Pillow reads, and PNG of 16 bits."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, ImageOps

from mmmixmim.validation import UnreadableFileError

from ..pillow_limits import open_picture
from .base import ImageReader

_PNG = b'\x89PNG\r\n\x1a\n'
_MODES = {
    '1': (1, bool),
    'L': (1, np.uint8),
    'LA': (2, np.uint8),
    'RGB': (3, np.uint8),
    'YCbCr': (3, np.uint8),
    'LAB': (3, np.uint8),
    'HSV': (3, np.uint8),
    'RGBA': (4, np.uint8),
    'RGBX': (4, np.uint8),
    'CMYK': (4, np.uint8),
    'I;16': (1, np.uint16),
    'I;16B': (1, np.uint16),
    'I': (1, np.int32),
    'F': (1, np.float32),
}


class PillowReader(ImageReader):
    """A file that Pillow reads, in its own channels and bits, turned by its EXIF.

    Palettes are converted to RGB. Of several images in a file the first one is read.

    Args:
        source: A local file, or the contents of one.
    """

    def __init__(self, source: Path | BytesIO) -> None:
        image = open_picture(source)
        self.image = image
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        size = image.size if turned else image.size[::-1]
        mode = 'RGB' if image.mode in ('P', 'PA') else image.mode
        if mode not in _MODES:
            raise UnreadableFileError(f"Pillow's mode {mode} is not supported")
        super().__init__(size, *_MODES[mode])
        self.mode = mode

    def close(self) -> None:
        """Close the file."""
        self.image.close()

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        image = ImageOps.exif_transpose(self.image)
        image = image.crop((left, top, left + width, top + height))
        if image.mode != self.mode:  # a palette
            image = image.convert('RGBA').convert(self.mode)
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)


class Png16Reader(ImageReader):
    """A PNG of 16 bits in any number of channels.

    Pillow keeps 8 bits of those in colour, so OpenCV decodes them.

    Args:
        data: Contents of the file.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.decoded = None
        width, height = (int.from_bytes(data[i : i + 4], 'big') for i in (16, 20))
        channels = {0: 1, 2: 3, 4: 2, 6: 4}[data[25]]
        super().__init__((height, width), channels, np.uint16)
        self.at_once = height * width

    def close(self) -> None:
        """Free the pixels."""
        self.decoded = None

    @staticmethod
    def recognises(header: bytes) -> bool:
        """Whether the first 26 bytes are those of such a file."""
        return header.startswith(_PNG) and header[24:25] == b'\x10'

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        if self.decoded is None:  # bands of rows are read one after the other
            data = np.frombuffer(self.data, np.uint8)
            self.decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if self.decoded is None:
            raise UnreadableFileError('its pixels are damaged')
        pixels = self.decoded.reshape(*self.size, -1)
        pixels = pixels[top : top + height, left : left + width]
        if self.channels == 2:  # OpenCV turns grey with alpha into BGR with alpha
            return pixels[..., [0, 3]]
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[self.channels]
        return pixels[..., order]
