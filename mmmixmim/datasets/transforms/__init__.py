"""Data transforms."""

from .load_image_or_skip import LoadImageOrSkip
from .load_random_resized_crop import LoadRandomResizedCrop
from .load_raster import LoadRaster
from .load_raster_crop import LoadRasterCrop
from .normalize_channels import NormalizeChannels

__all__ = [
    'LoadImageOrSkip',
    'LoadRandomResizedCrop',
    'LoadRaster',
    'LoadRasterCrop',
    'NormalizeChannels',
]
