"""Multi-head self-attention, over all tokens or inside windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmmixmim.geometry import load_bias_table
from mmmixmim.ops import (
    Linear,
    full_attention,
    linear_qkv,
    split_heads,
    window_attention,
)

from .windows import WindowLayout


class Attention(nn.Module):
    """Multi-head self-attention over all tokens, as in ViT.

    Args:
        dim: Number of channels C, divisible by ``num_heads``.
        num_heads: Number of heads.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        attn_drop: Dropout probability of the attention weights. Defaults to 0.
        proj_drop: Dropout probability of the output. Defaults to 0.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """Attend among all tokens (B, N, C)."""
        qkv = split_heads(linear_qkv(self.qkv, x, self.num_heads), self.num_heads)
        q, k, v = (each.transpose(1, 2) for each in qkv)  # (B, heads, N, c)
        out = full_attention(q, k, v, self.dropout)
        out = out.transpose(1, 2).flatten(2)  # (B, N, C)
        return self.proj_drop(self.proj(out))

    @property
    def dropout(self) -> float:
        """Dropout probability of the attention weights in the current mode."""
        return self.attn_drop if self.training else 0.0


class WindowAttention(Attention):
    """Multi-head self-attention inside windows, with a relative position bias.

    Inside a window a token attends to tokens of its own image only; the layout knows
    which these are.

    Source: MixMAE (arXiv 2205.13137), section 3; the bias is that of Swin
    (arXiv 2103.14030), equation 4.

    Args:
        dim: Number of channels C, divisible by ``num_heads``.
        num_heads: Number of heads.
        window: Height and width of the window that the bias table is made for.
        **kwargs: See :class:`Attention`.
    """

    def __init__(
        self, dim: int, num_heads: int, window: tuple[int, int], **kwargs
    ) -> None:
        super().__init__(dim, num_heads, **kwargs)
        self.window = window
        rows = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(rows, num_heads))

    def forward(self, x: Tensor, layout: WindowLayout) -> Tensor:
        """Attend among tokens (B, N, C) in the order of ``layout``."""
        qkv = linear_qkv(self.qkv, x, self.num_heads, layout.masked)  # (B, N, 3 * C)
        biases = layout.biases(self.relative_position_bias_table)  # (heads, n, n) each
        out = window_attention(
            qkv, self.num_heads, layout.spans, biases, layout.masks, self.dropout
        )
        return self.proj_drop(self.proj(out))

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # The number of rows of a table does not tell the sides of its window.
        if hasattr(destination, '_metadata'):
            destination._metadata[prefix[:-1]]['window'] = self.window

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, *args, **kwargs
    ) -> None:
        # Other formats save this index; here it follows from the window.
        state_dict.pop(f'{prefix}relative_position_index', None)
        name = f'{prefix}relative_position_bias_table'
        load_bias_table(state_dict, name, self.window, local_metadata.get('window'))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args, **kwargs
        )
