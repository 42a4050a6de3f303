"""Read crops of images of any kind: any channels, 8 bits to float32."""

from .array import ArrayReader
from .base import Box, ImageReader, UnreadableImageError
from .opening import EXTENSIONS, open_image

__all__ = [
    'EXTENSIONS',
    'ArrayReader',
    'Box',
    'ImageReader',
    'UnreadableImageError',
    'open_image',
]
