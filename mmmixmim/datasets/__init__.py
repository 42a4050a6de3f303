"""Datasets and data transforms."""

from .digits import Digits, ScatteredDigits
from .image_folder import ImageFolder
from .inaturalist import INaturalist
from .transforms import LoadRandomResizedCrop, LoadRasterCrop

__all__ = [
    'Digits',
    'INaturalist',
    'ImageFolder',
    'LoadRandomResizedCrop',
    'LoadRasterCrop',
    'ScatteredDigits',
]
