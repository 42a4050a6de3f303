"""TIFF by tifffile, by windows."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import tifffile

from mmmixmim.validation import UnreadableFileError

from .base import ImageReader


class TiffReader(ImageReader):
    """A TIFF, BigTIFF or GeoTIFF of any layout: planar, tiled, of several pages.

    Pages of one size are channels, before the samples of a pixel: so are further axes,
    as z and time. Of pages of different sizes, as the levels of a pyramid, the first
    size is read. Pixels keep their values: palettes and colour spaces are not applied.

    Uncompressed pixels in one piece are memory-mapped. Of others only the tiles or
    strips that a box touches are decoded.

    Args:
        source: A local file, or the contents of one.
    """

    def __init__(self, source: Path | BytesIO) -> None:
        self.file = tifffile.TiffFile(source)
        series = self.file.series[0]
        # A writer may have described each page on its own.
        self.series = [
            each
            for each in self.file.series
            if (each.shape, each.dtype) == (series.shape, series.dtype)
        ]
        page = series.keyframe
        if page.dtype is None:
            raise UnreadableFileError(
                f'its pixels of {page.bitspersample} bits are not supported'
            )
        super().__init__(
            (page.imagelength, page.imagewidth),
            len(self.series)
            * (math.prod(series.shape) // (page.imagelength * page.imagewidth)),
            page.dtype,
        )
        self.planar = page.samplesperpixel > 1 and page.planarconfig == 2
        self.samples = page.samplesperpixel
        self.tile = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, page.imagelength), page.imagewidth)
        )
        mapped = series.dataoffset is not None and page.is_memmappable
        self.at_once = None if mapped else math.prod(self.tile)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        rows, columns = slice(top, top + height), slice(left, left + width)
        shape = (*self.size, self.samples)
        if self.planar:
            shape = (self.samples, *self.size)
        windows = []
        for series in self.series:
            whole = series.dataoffset is not None  # pixels in one piece
            mapped = whole and series.keyframe.is_memmappable
            # One header may describe all pages, and there may be no file to map.
            if mapped or (whole and any(page is None for page in series.pages)):
                pixels = series.asarray(out='memmap' if mapped else None, maxworkers=1)
                for page in pixels.reshape(-1, *shape):
                    page = page.transpose(1, 2, 0) if self.planar else page
                    windows.append(page[rows, columns])
            else:
                windows += [self._window(page, rows, columns) for page in series]
        return windows[0] if len(windows) == 1 else np.concatenate(windows, axis=2)

    def _window(self, page, rows: slice, columns: slice) -> np.ndarray:
        """Decode what a page shows in a window, (height, width, samples)."""
        frame, page = page, page.keyframe
        if page.imagedepth > 1:
            raise UnreadableFileError('its tiles are volumes, expected images')
        tile_height, tile_width = self.tile
        planes = self.samples if self.planar else 1
        down = -(-page.imagelength // tile_height)
        right = -(-page.imagewidth // tile_width)
        # Numbers of the tiles: planes, rows and columns.
        tiles = np.arange(planes * down * right).reshape(planes, down, right)
        touched = tiles[
            :,
            rows.start // tile_height : -(-rows.stop // tile_height),
            columns.start // tile_width : -(-columns.stop // tile_width),
        ]
        height, width = rows.stop - rows.start, columns.stop - columns.start
        window = np.full((height, width, self.samples), page.nodata, page.dtype)
        for number in map(int, touched.flat):
            tile, (plane, _, top, left, _) = self._decode(frame, number)
            if tile is None:  # not stored
                continue
            y, x = top - rows.start, left - columns.start
            part = tile[max(-y, 0) : height - y, max(-x, 0) : width - x]
            y, x = max(y, 0), max(x, 0)
            samples = slice(plane, plane + 1) if self.planar else slice(None)
            window[y : y + part.shape[0], x : x + part.shape[1], samples] = part
        return window

    def _decode(self, frame, number: int) -> tuple[np.ndarray | None, tuple]:
        """Decode a tile or strip, (height, width, samples) or None; where it lies."""
        count, page = frame.databytecounts[number], frame.keyframe
        self.file.filehandle.seek(frame.dataoffsets[number])
        data = self.file.filehandle.read(count) if count else None
        tables = dict(jpegtables=page.jpegtables, jpegheader=page.jpegheader)
        given = {name: table for name, table in tables.items() if table is not None}
        tile, place, shape = page.decode(data, number, **given)
        return None if tile is None else tile[0, : shape[1], : shape[2]], place
