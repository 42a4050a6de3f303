"""Position embeddings and relative positions: pure tensors, no modules."""

from .position_embedding import (
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)
from .relative_position import load_bias_table, relative_position_index

__all__ = [
    'load_bias_table',
    'load_position_embedding',
    'relative_position_index',
    'resize_position_embedding',
    'sincos_position_embedding',
]
