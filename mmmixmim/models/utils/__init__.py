"""What the backbone, the neck and the head share."""

from .attention import Attention
from .linear_layers import linear
from .position_embedding import (
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)
from .token_ownership import TokenOwnership
from .transformer import TransformerBlock, init_transformer_weights
from .windows import WindowLayout

__all__ = [
    'Attention',
    'TokenOwnership',
    'TransformerBlock',
    'WindowLayout',
    'init_transformer_weights',
    'linear',
    'load_position_embedding',
    'resize_position_embedding',
    'sincos_position_embedding',
]
