"""Fast kernels, each beside its plain equation.

``with ops.plain():`` or the environment variable ``MMMIXMIM_PLAIN=1`` turns all of them
off. Nothing here knows a model: ops take tensors, slices and numbers.
"""

from .attention import window_attention
from .chunks import in_chunks
from .linear_layer import Linear, linear, linear_gelu
from .permutation import permute
from .recompute import LayerNorm, gelu
from .switch import is_plain, plain, runs_eagerly

__all__ = [
    'LayerNorm',
    'Linear',
    'gelu',
    'in_chunks',
    'is_plain',
    'linear',
    'linear_gelu',
    'permute',
    'plain',
    'runs_eagerly',
    'window_attention',
]
