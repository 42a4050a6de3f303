"""Checkpoints of MixMIM as different projects save them."""

from .encoder import (
    encoder_weights,
    has_encoder,
    load_encoder,
    pick_encoder,
    rename_entries,
)
from .files import read_checkpoint, read_weights, write_weights
from .layouts import INDEX, LAYOUTS, convert_state_dict, detect_layout
from .mmengine_loader import translate_authors
from .whole_model import load_whole

__all__ = [
    'INDEX',
    'LAYOUTS',
    'convert_state_dict',
    'detect_layout',
    'encoder_weights',
    'has_encoder',
    'load_encoder',
    'load_whole',
    'pick_encoder',
    'read_checkpoint',
    'read_weights',
    'rename_entries',
    'translate_authors',
    'write_weights',
]
