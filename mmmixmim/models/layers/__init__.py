"""The layers that encoder and decoder share, in plain PyTorch."""

from .attention import Attention, WindowAttention
from .block import TransformerBlock, init_transformer_weights
from .ffn import FFN
from .norm import Norm
from .patches import PatchEmbed, PatchMerging
from .stage import Stage
from .windows import WindowLayout

__all__ = [
    'FFN',
    'Attention',
    'Norm',
    'PatchEmbed',
    'PatchMerging',
    'Stage',
    'TransformerBlock',
    'WindowAttention',
    'WindowLayout',
    'init_transformer_weights',
]
