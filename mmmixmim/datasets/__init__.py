"""Datasets and data transforms."""

from .digits import Digits, ScatteredDigits
from .image_folder import ImageFolder
from .inaturalist import INaturalist
from .transforms import LoadImageOrSkip, LoadRandomResizedCrop
from .unreadable import naming_lost_files, unreadable_images

__all__ = [
    'Digits',
    'INaturalist',
    'ImageFolder',
    'LoadImageOrSkip',
    'LoadRandomResizedCrop',
    'ScatteredDigits',
    'naming_lost_files',
    'unreadable_images',
]
