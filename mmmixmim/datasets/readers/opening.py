"""Choose the reader of a file."""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path

from mmengine import fileio

from mmmixmim.validation import (
    MissingDependencyError,
    MissingFileError,
    UnreadableFileError,
)

from .array import NumpyReader
from .base import ImageReader, naming
from .pillow import PillowReader, Png16Reader

TIFF = ('.tif', '.tiff')
NUMPY = ('.npy', '.npz')
DICOM = ('.dcm', '.dicom')
LOCAL_ONLY = ('.jp2', '.vrt', '.img', '.nc', '.hdf', '.h5')  # by rasterio
# Beyond those of Pillow.
EXTENSIONS = (*NUMPY, *DICOM, *LOCAL_ONLY)


def open_image(
    path: str | Path, backend_args: dict | None = None, data: bytes | None = None
) -> ImageReader:
    """Read the header of an image.

    Args:
        path: A local file, or one on any MMEngine file backend, which is fetched whole.
            Its extension chooses the reader; anything unknown is read by Pillow.
        backend_args: Arguments of MMEngine's file backend. Defaults to None.
        data: Contents of the file if they are at hand. Defaults to None.

    Returns:
        The reader, with ``size``, ``channels`` and ``dtype``.

    Raises:
        MissingFileError: If there is no such file.
        MissingDependencyError: If the library for this kind of file is not installed.
        UnreadableImageError: If it is damaged, or no image of a supported kind. The
            message is one line that names the file.

    Examples:
        >>> with open_image('scene.tif') as image:  # doctest: +SKIP
        ...     print(image.size, image.channels, image.dtype)
        ...     crop = image.read((0, 0, 256, 256))
    """
    path = str(path)
    with naming(path):
        if data is not None:
            source = BytesIO(data)
        elif backend_args is not None or '://' in path:
            source = BytesIO(fileio.get(path, backend_args=backend_args))
        else:
            source = Path(path).expanduser()
            if not source.is_file():
                raise MissingFileError(f'There is no image file {path!r}.')
        reader = _reader(path, source)
        reader.name = path
        return reader


def _reader(path: str, source: Path | BytesIO) -> ImageReader:
    name = path.lower()
    if name.endswith(NUMPY):
        return NumpyReader(source)
    if name.endswith(TIFF):
        return _optional('tiff', 'TiffReader', 'tifffile imagecodecs', path)(source)
    if name.endswith(DICOM):
        return _optional('dicom', 'DicomReader', 'pydicom', path)(source)
    if name.endswith(LOCAL_ONLY):
        if isinstance(source, BytesIO):
            raise UnreadableFileError('rasterio reads local files only: download it')
        return _optional('raster', 'RasterioReader', 'rasterio', path)(source)
    if name.endswith('.png'):
        with (
            source.open('rb') if isinstance(source, Path) else nullcontext(source) as f
        ):
            header = f.read(26)
            if Png16Reader.recognises(header):
                return Png16Reader(header + f.read())
    return PillowReader(source)


def _optional(module: str, name: str, packages: str, path: str) -> type[ImageReader]:
    try:
        return getattr(importlib.import_module(f'{__package__}.{module}'), name)
    except ImportError as error:
        raise MissingDependencyError(
            f'{path!r} needs a package that is not installed ({error}): run `pip '
            f'install {packages}`.'
        ) from error
