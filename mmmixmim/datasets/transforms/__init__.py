"""Data transforms."""

from .load_random_resized_crop import LoadRandomResizedCrop

__all__ = ['LoadRandomResizedCrop']
