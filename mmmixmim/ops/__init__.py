"""Fast kernels, each beside its plain equation.

``with ops.plain():`` or the environment variable ``MMMIXMIM_PLAIN=1`` turns all of them
off. Nothing here knows a model: ops take tensors, slices and numbers.
"""

from .attention import (
    biased_attention,
    full_attention,
    split_heads,
    window_attention,
)
from .chunks import in_chunks
from .linear_layer import Linear, linear, linear_gelu, linear_qkv
from .permutation import permute
from .recompute import LayerNorm, gelu, run_block, set_low_precision, set_recompute
from .switch import as_on_gpu, is_plain, plain, runs_eagerly, runs_on_cpu

__all__ = [
    'LayerNorm',
    'Linear',
    'as_on_gpu',
    'biased_attention',
    'full_attention',
    'gelu',
    'in_chunks',
    'is_plain',
    'linear',
    'linear_gelu',
    'linear_qkv',
    'permute',
    'plain',
    'run_block',
    'runs_eagerly',
    'runs_on_cpu',
    'set_low_precision',
    'set_recompute',
    'split_heads',
    'window_attention',
]
