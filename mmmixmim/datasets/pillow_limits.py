"""Which image files Pillow may open, and how large they may be."""

from __future__ import annotations

from functools import cache

from PIL import Image

from mmmixmim.validation import UnreadableFileError

# Where Pillow raises by default: 537 MB as RGB. At half of it, Pillow warns.
MAX_PIXELS = 178_956_970
# Pillow runs Ghostscript on EPS, and reads dozens of rare formats, whatever the name.
FORMATS = (
    'AVIF',
    'BMP',
    'DIB',
    'GIF',
    'JPEG',
    'JPEG2000',
    'MPO',
    'PNG',
    'PPM',
    'TIFF',
    'WEBP',
)


def open_picture(source) -> Image.Image:
    """Read the header of an image in one of :data:`FORMATS`.

    Args:
        source: A path, or a file opened for reading.

    Raises:
        UnreadableFileError: If it has more than :data:`MAX_PIXELS` pixels.
        UnidentifiedImageError: If it is in none of the formats.
    """
    too_large = UnreadableFileError(
        f'it has more than {MAX_PIXELS:,} pixels: resize it, or cut it into tiles'
    )
    try:
        image = Image.open(source, formats=_known_formats())
    except Image.DecompressionBombError as error:
        raise too_large from error
    if image.width * image.height > MAX_PIXELS:
        raise too_large
    return image


@cache
def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
