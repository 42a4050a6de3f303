"""Datasets of the project."""

from .digits import Digits
from .image_folder import ImageFolder

__all__ = ['Digits', 'ImageFolder']
