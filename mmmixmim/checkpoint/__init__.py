"""Checkpoints of MixMIM in the formats of different projects."""

from .channels import fit_in_channels
from .encoder import split_encoder
from .files import read_checkpoint, read_file, read_weights, write_weights
from .formats import FORMATS, detect_format
from .load import (
    adapt_encoder,
    adapt_part,
    fit_stock,
    load_encoder,
    load_pretrained,
    load_whole,
    split_init_cfg,
)
from .mmengine_hook import register_loaders, translate_checkpoint
from .plain import to_plain
from .timm_names import to_timm

__all__ = [
    'FORMATS',
    'adapt_encoder',
    'adapt_part',
    'detect_format',
    'fit_in_channels',
    'fit_stock',
    'load_encoder',
    'load_pretrained',
    'load_whole',
    'read_checkpoint',
    'read_file',
    'read_weights',
    'register_loaders',
    'split_encoder',
    'split_init_cfg',
    'to_plain',
    'to_timm',
    'translate_checkpoint',
    'write_weights',
]
