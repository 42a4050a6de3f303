"""Images that are arrays: in memory, or in NumPy's files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from mmmixmim.validation import UnreadableFileError

from .base import MAX_BYTES, ImageReader


class ArrayReader(ImageReader):
    """An array (H, W), (H, W, C) or (C, H, W).

    Of three axes the shorter one of the first and the last has the channels, the last
    one if both are equal.

    Args:
        array: The pixels, memory-mapped or in memory.
    """

    at_once = None

    def __init__(self, array: np.ndarray) -> None:
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3:
            raise UnreadableFileError(
                f'its shape is {array.shape}, expected (H, W), (H, W, C) or (C, H, W)'
            )
        if 0 < array.shape[0] < array.shape[2]:
            array = array.transpose(1, 2, 0)
        super().__init__(array.shape[:2], array.shape[2], array.dtype)
        self.array = array

    def _read(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        return self.array[top : top + height, left : left + width]


class NumpyReader(ArrayReader):
    """A ``.npy`` file, memory-mapped if it is local, or a ``.npz`` file.

    A ``.npz`` file holds one array, or one that is named ``image``. Pickled objects are
    not loaded.
    """

    def __init__(self, source: Path | BytesIO) -> None:
        mapped = 'r' if isinstance(source, Path) else None
        try:
            content = np.load(source, mmap_mode=mapped, allow_pickle=False)
        except ValueError as error:  # NumPy's message recommends to run the code in it
            raise UnreadableFileError(
                'it is no array of numbers; Python objects are not loaded'
            ) from error
        if not isinstance(content, np.ndarray):
            with content:
                names = content.files
                name = names[0] if len(names) == 1 else 'image'
                if name not in names:
                    raise UnreadableFileError(
                        f'it holds the arrays {", ".join(names)}: expected one, or one '
                        "named 'image'"
                    )
                unpacked = content.zip.getinfo(f'{name}.npy').file_size
                if unpacked > MAX_BYTES:
                    raise UnreadableFileError(
                        f'it unpacks to {unpacked / 2**30:.1f} GiB, more than '
                        f'{MAX_BYTES / 2**30:.0f}: store it as .npy'
                    )
                content = content[name]
        super().__init__(content)
