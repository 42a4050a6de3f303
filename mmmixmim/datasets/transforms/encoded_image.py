"""Decode a resized crop straight from the bytes of an image file."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mmmixmim.validation import UnreadableFileError

from ..pillow_limits import open_picture
from ..readers import Box

try:  # deprecated since torchvision 0.29
    from torchvision.io import decode_jpeg
except ImportError:
    decode_jpeg = None

# Axes that an EXIF orientation turns around, once 5 to 8 are transposed.
_FLIPS = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}


class EncodedImage:
    """An image file whose header has been read and whose pixels have not.

    Decoding yields 8-bit RGB in the EXIF orientation. Grayscale is repeated, CMYK
    and palettes are converted, alpha is dropped and 16-bit values keep their upper
    8 bits. Of a file with several images, only the first is decoded.

    Args:
        data: Contents of an image file, in one of the ``FORMATS`` of
            :mod:`mmmixmim.datasets.pillow_limits`.

    Attributes:
        size: Height and width in pixels, after applying the EXIF orientation.

    Raises:
        UnreadableFileError: If it is in none of the formats, damaged, or has more than
            ``MAX_PIXELS`` pixels.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            self.image = open_picture(io.BytesIO(data))
        except UnidentifiedImageError as error:
            raise UnreadableFileError(
                'it is no image in a supported format' if data else 'it is empty'
            ) from error
        width, height = self.image.size
        self.orientation = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        turned = self.orientation in (5, 6, 7, 8)
        self.size = (width, height) if turned else (height, width)

    def resized_crop(
        self,
        box: Box,
        size: tuple[int, int],
        interpolation: str = 'bicubic',
        reduction: int = 1,
    ) -> Tensor:
        """Decode the image, crop it and resize the crop with antialiasing.

        Args:
            box: Top, left, height and width of the crop in pixels.
            size: Height and width of the result.
            interpolation: 'bicubic' or 'bilinear'. Defaults to 'bicubic'.
            reduction: 1, 2, 4 or 8. JPEGs are decoded at ``1 / reduction`` of their
                size, rounded up. Other formats ignore it. Defaults to 1.

        Returns:
            RGB, uint8 (3, H, W).

        Raises:
            OSError: If the data is damaged or the pixels are not 8 or 16 bits.
        """
        # torchvision decodes faster than Pillow, but not at reduced size nor CMYK.
        jpeg = self.image.format in ('JPEG', 'MPO')  # MPO: multi-picture JPEG (phones)
        whole = jpeg and reduction == 1 and self.image.mode in ('L', 'RGB')
        if whole and decode_jpeg:
            return self._by_torchvision(box, size, interpolation)
        return self._by_pillow(box, size, interpolation, reduction)

    def _by_torchvision(
        self, box: Box, size: tuple[int, int], interpolation: str
    ) -> Tensor:
        data = torch.frombuffer(bytearray(self.data), dtype=torch.uint8)
        try:
            pixels = decode_jpeg(data, 'RGB')
        except RuntimeError as error:
            raise UnreadableFileError(str(error).splitlines()[0]) from error
        # As Pillow says: torchvision reads no XMP, and damaged EXIF otherwise.
        if self.orientation in (5, 6, 7, 8):
            pixels = pixels.transpose(1, 2)
        if self.orientation in _FLIPS:
            pixels = pixels.flip(_FLIPS[self.orientation])
        top, left, height, width = box
        crop = pixels[None, :, top : top + height, left : left + width]
        return F.interpolate(crop, size, mode=interpolation, antialias=True)[0]

    def _by_pillow(
        self, box: Box, size: tuple[int, int], interpolation: str, reduction: int
    ) -> Tensor:
        if reduction > 1:
            width, height = self.image.size
            self.image.draft(None, (width // reduction, height // reduction))
        image = ImageOps.exif_transpose(self.image)
        down, right = image.height / self.size[0], image.width / self.size[1]
        top, left, height, width = box
        # Rounded up, the last edges would lie behind the image, where it is black.
        edges = (
            left * right,
            top * down,
            min((left + width) * right, image.width),
            min((top + height) * down, image.height),
        )
        # Crop to whole pixels first: resize() would blend in pixels outside the box.
        outer = *map(math.floor, edges[:2]), *map(math.ceil, edges[2:])
        crop = _to_rgb(image.crop(outer))
        inner = [edge - outer[i % 2] for i, edge in enumerate(edges)]
        resampling = Image.Resampling[interpolation.upper()]
        crop = crop.resize(size[::-1], resampling, box=inner)
        return torch.from_numpy(np.array(crop)).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == 'F':
        raise UnreadableFileError(
            'its pixels are float32, expected 8-bit or 16-bit integers'
        )
    if image.mode == 'P':  # Pillow warns of transparent palettes converted to RGB
        image = image.convert('RGBA')
    if image.mode.startswith('I'):
        pixels = np.asarray(image)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise UnreadableFileError(
                f'its pixels range from {pixels.min()} to {pixels.max()}, '
                'expected 0 to 65535'
            )
        image = Image.fromarray((pixels >> 8).astype(np.uint8))
    return image.convert('RGB')
