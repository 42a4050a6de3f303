"""The transformer block that the encoder and the decoder share."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .windows import WindowLayout, load_bias_table


class Attention(nn.Module):
    """Multi-head self-attention, inside windows or over all tokens.

    Args:
        dim: Number of channels, divisible by ``num_heads``.
        num_heads: Number of heads.
        window: Height and width of the windows, which get a learned relative
            position bias. None for attention over all tokens without a bias.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop: Dropout probability of the attention weights.
        proj_drop: Dropout probability of the output.

    Source: MixMAE (arXiv 2205.13137), section 3.2; the bias is that of Swin
    (arXiv 2103.14030), equation 4.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int] | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.window = window
        if window is not None:
            rows = (2 * window[0] - 1) * (2 * window[1] - 1)
            self.relative_position_bias_table = nn.Parameter(
                torch.zeros(rows, num_heads)
            )
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, layout: WindowLayout | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, windows, N, C); tokens see each other inside a window only.
            layout: Where the tokens are in their windows. None for attention
                without a bias among all tokens of a window.

        Returns:
            Tensor of the shape of ``x``.
        """
        batch, windows, tokens, dim = x.shape
        heads = self.num_heads
        qkv = self.qkv(x).view(batch, windows, tokens, 3, heads, dim // heads)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)
        blocked = None if layout is None else layout.blocked
        # Fused kernels take four dimensions. Windows go beside the images, so
        # that all share one bias; or, where each window has a mask of its own,
        # beside the heads, so that all images share it.
        q, k, v = qkv.flatten(1, 2) if blocked is None else qkv.flatten(2, 3)
        if layout is None:
            out = self._attend(q, k, v, None)
        else:
            parts = [
                self._attend(
                    *(t[:, :, run] for t in (q, k, v)), self._bias(index, blocked)
                )
                for run, index in layout.segments
            ]
            out = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        out = out.reshape(batch, windows, heads, tokens, dim // heads).transpose(2, 3)
        return self.proj_drop(self.proj(out.reshape(batch, windows, tokens, dim)))

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # A table alone does not tell the sides of its window.
        if self.window is not None and hasattr(destination, '_metadata'):
            destination._metadata[prefix[:-1]]['window'] = self.window

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, *args, **kwargs
    ) -> None:
        # Other layouts save this index, here it follows from the window.
        state_dict.pop(f'{prefix}relative_position_index', None)
        if self.window is not None:
            name = f'{prefix}relative_position_bias_table'
            load_bias_table(state_dict, name, self.window, local_metadata.get('window'))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args, **kwargs
        )

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            bias = bias.to(q.dtype)
        dropout = self.attn_drop if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, bias, dropout)

    def _bias(self, index: Tensor, blocked: Tensor | None) -> Tensor:
        """What is added to the logits.

        Returns:
            (1, heads, n, n), or (1 or B, windows * heads, n, n) with a mask.
        """
        bias = self.relative_position_bias_table[index].permute(2, 0, 1).unsqueeze(0)
        if blocked is None:
            return bias
        return bias.unsqueeze(1).masked_fill(blocked, float('-inf')).flatten(1, 2)


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each pre-normalised and residual.

    Args:
        dim: Number of channels.
        num_heads: Number of attention heads.
        window: See :class:`Attention`.
        mlp_ratio: Hidden channels of the perceptron over ``dim``.
        qkv_bias: See :class:`Attention`.
        drop: Dropout probability after each projection.
        attn_drop: Dropout probability of the attention weights.
        drop_path: Probability of dropping a residual branch for an image.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int] | None = None,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, window, qkv_bias, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(dim, hidden),
                act=nn.GELU(),
                drop1=nn.Dropout(drop),
                fc2=nn.Linear(hidden, dim),
                drop2=nn.Dropout(drop),
            )
        )

    def forward(self, x: Tensor, layout: WindowLayout | None = None) -> Tensor:
        """Transform tokens (B, windows, N, C) that ``layout`` arranged."""
        x = x + self.drop_path(self.attn(self.norm1(x), layout))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise one module as the authors do; for ``nn.Module.apply``.

    Linear layers: xavier-uniform weights and zero biases. LayerNorm: ones and
    zeros. Bias tables: truncated normal of deviation 0.02. Anything else, the
    patch embedding's convolution included, keeps PyTorch's initialisation.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, Attention) and module.window is not None:
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
