"""Mixing images, and keeping track of who owns each token."""

from .encoder import MixingEncoder, check_encoder, check_encoder_attributes
from .ownership import TokenOwnership

__all__ = [
    'MixingEncoder',
    'TokenOwnership',
    'check_encoder',
    'check_encoder_attributes',
]
