"""Read crops of images of any kind: any channels, 8 bits to float32."""

from .array import ArrayReader
from .base import Box, ImageReader, UnreadableImageError, middle_of
from .opening import EXTENSIONS, LOCAL_ONLY, open_image
from .pillow import PillowReader

__all__ = [
    'EXTENSIONS',
    'LOCAL_ONLY',
    'ArrayReader',
    'Box',
    'ImageReader',
    'PillowReader',
    'UnreadableImageError',
    'middle_of',
    'open_image',
]
