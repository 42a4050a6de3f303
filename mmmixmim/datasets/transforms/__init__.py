"""Data transforms."""

from .load_random_resized_crop import LoadRandomResizedCrop
from .load_raster_crop import LoadRasterCrop

__all__ = ['LoadRandomResizedCrop', 'LoadRasterCrop']
