"""Datasets of the project."""

from .digits import Digits
from .image_folder import ImageFolder
from .inaturalist import INaturalist

__all__ = ['Digits', 'INaturalist', 'ImageFolder']
