"""From the bytes of an image file to a resized crop."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from mmmixmim.validation import UnreadableFileError

Box = tuple[int, int, int, int]


class EncodedImage:
    """An image of which only the header has been read.

    Pixels come out as 8 bits of red, green and blue, turned as the file's EXIF
    orientation says. Grey is repeated, CMYK and palettes are converted, an alpha
    channel is dropped, and 16 bits keep their upper 8. Of several images in a file the
    first is taken.

    Args:
        data: The content of a file of any format that Pillow knows.

    Attributes:
        size: Height and width, once turned.

    Raises:
        OSError: If the data is no such image.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            self.image = Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            raise UnreadableFileError(
                'it is no image of a format that Pillow knows'
            ) from error
        width, height = self.image.size
        orientation = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        self.size = (width, height) if orientation in (5, 6, 7, 8) else (height, width)

    def resized_crop(
        self,
        box: Box,
        size: tuple[int, int],
        interpolation: str = 'bicubic',
        reduction: int = 1,
    ) -> Tensor:
        """Decode, and resize a part with antialiasing.

        Args:
            box: Top, left, height and width of the part in pixels.
            size: Height and width that it gets.
            interpolation: 'bicubic' or 'bilinear'.
            reduction: 1, 2, 4 or 8. A JPEG is decoded straight to its size over
                this, rounded up; other formats ignore it.

        Returns:
            Uint8 tensor (3, H, W).

        Raises:
            OSError: If the data is damaged, or pixels are no 8 or 16 bits.
        """
        # torchvision decodes faster than Pillow, but neither reduced nor CMYK.
        jpeg = self.image.format in ('JPEG', 'MPO')  # MPO: several, as of phones
        if jpeg and reduction == 1 and self.image.mode in ('L', 'RGB'):
            return self._by_torchvision(box, size, interpolation)
        return self._by_pillow(box, size, interpolation, reduction)

    def _by_torchvision(
        self, box: Box, size: tuple[int, int], interpolation: str
    ) -> Tensor:
        data = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        try:
            pixels = decode_jpeg(data, ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            raise UnreadableFileError(str(error).splitlines()[0]) from error
        top, left, height, width = box
        part = pixels[None, :, top : top + height, left : left + width]
        return F.interpolate(part, size, mode=interpolation, antialias=True)[0]

    def _by_pillow(
        self, box: Box, size: tuple[int, int], interpolation: str, reduction: int
    ) -> Tensor:
        if reduction > 1:
            width, height = self.image.size
            self.image.draft(None, (width // reduction, height // reduction))
        image = ImageOps.exif_transpose(self.image)
        down, right = image.height / self.size[0], image.width / self.size[1]
        top, left, height, width = box
        edges = left * right, top * down, (left + width) * right, (top + height) * down
        # Whole pixels are cut out, lest others leak into the part by resizing.
        outer = *map(math.floor, edges[:2]), *map(math.ceil, edges[2:])
        part = _to_rgb(image.crop(outer))
        inner = [edge - outer[i % 2] for i, edge in enumerate(edges)]
        resampling = Image.Resampling[interpolation.upper()]
        part = part.resize(size[::-1], resampling, box=inner)
        return torch.from_numpy(np.array(part)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == 'F':
        raise UnreadableFileError(
            'its pixels are 32-bit floating-point numbers, not 8 or 16 bits'
        )
    if image.mode == 'P':  # a palette may have transparent entries
        image = image.convert('RGBA')
    if image.mode.startswith('I'):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UnreadableFileError(
                f'its pixels go from {pixels.min()} to {pixels.max()}, beyond 16 bits'
            )
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    return image.convert('RGB')
