"""Mixing images, and keeping track of who owns each token."""

from .encoder import MixingEncoder, check_encoder_attributes
from .encoder_check import check_encoder
from .filling import FILLINGS, build_filling
from .ownership import TokenOwnership
from .stage_features import stage_features

__all__ = [
    'FILLINGS',
    'MixingEncoder',
    'TokenOwnership',
    'build_filling',
    'check_encoder',
    'check_encoder_attributes',
    'stage_features',
]
