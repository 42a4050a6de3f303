"""Datasets and data transforms."""

from .digits import Digits, ScatteredDigits
from .image_folder import ImageFolder
from .inaturalist import INaturalist
from .mixture_groups import MixtureGroups
from .transforms import LoadRandomResizedCrop

__all__ = [
    'Digits',
    'INaturalist',
    'ImageFolder',
    'LoadRandomResizedCrop',
    'MixtureGroups',
    'ScatteredDigits',
]
