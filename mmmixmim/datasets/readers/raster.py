"""Formats of remote sensing, by rasterio."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from .base import ImageReader

# Georeferencing is not used, so its absence is no warning.
warnings.filterwarnings('ignore', category=NotGeoreferencedWarning)


class RasterioReader(ImageReader):
    """A file that GDAL reads, such as JPEG 2000, ENVI or a virtual raster.

    Bands are channels. Boxes are read as windows.

    Args:
        source: A local file.
    """

    def __init__(self, source: Path) -> None:
        self.file = rasterio.open(source)
        super().__init__(
            self.file.shape, self.file.count, np.result_type(*self.file.dtypes)
        )

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        return self.file.read(window=Window(left, top, width, height)).transpose(
            1, 2, 0
        )
