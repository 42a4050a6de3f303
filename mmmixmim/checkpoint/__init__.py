"""Checkpoints of MixMIM as different projects save them."""

from .files import read_weights, write_weights
from .layouts import LAYOUTS, convert_state_dict, detect_layout
from .loading import load_whole

__all__ = [
    'LAYOUTS',
    'convert_state_dict',
    'detect_layout',
    'load_whole',
    'read_weights',
    'write_weights',
]
