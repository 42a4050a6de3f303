"""Multi-head self-attention, inside windows or over all tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from .cpu_attention import segment_attention
from .linear_layers import linear
from .windows import WindowLayout, load_bias_table

# PyTorch's counter of operations knows its fused attention on a GPU, not on a CPU.
for _way in ('', '_backward'):
    _name = '_scaled_dot_product_flash_attention'
    flop_registry.setdefault(
        getattr(torch.ops.aten, f'{_name}_for_cpu{_way}'),
        flop_registry[getattr(torch.ops.aten, f'{_name}{_way}')],
    )


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

    def forward(
        self,
        x: Tensor,
        layout: WindowLayout | None = None,
        norm: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            x: Tokens (B, N, C).
            layout: Where they are in their windows, and who sees whom. None for
                attention among all tokens, without a bias.
            norm: Applied to the tokens first. What it returns is not kept for the
                backward pass.

        Returns:
            Tensor of the shape of ``x``.
        """
        qkv = linear(self.qkv, x, before=norm)
        if layout is None:
            out = self._attend(qkv, None, None)
        else:
            out = self._attend_in_windows(qkv, layout)
        return self.proj_drop(linear(self.proj, out))

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

    def _attend_in_windows(self, qkv: Tensor, layout: WindowLayout) -> Tensor:
        biases = layout.biases(self.relative_position_bias_table)
        segments = layout.segments
        dropout = self.training and self.attn_drop > 0
        masked = any(segment.blocked is not None for segment in segments)
        trained = qkv.requires_grad or biases[0].requires_grad
        # PyTorch's fused attention for a CPU has no gradient for the bias.
        if (trained and qkv.device.type == 'cpu') and not (
            masked or dropout or torch.compiler.is_compiling()
        ):
            return segment_attention(qkv, self.num_heads, segments, biases)
        parts = [
            self._attend(
                qkv[:, each.tokens].unflatten(1, (each.windows, -1)), bias, each.blocked
            )
            for each, bias in zip(segments, biases, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _attend(
        self, qkv: Tensor, bias: Tensor | None, blocked: Tensor | None
    ) -> Tensor:
        """Attend by PyTorch's own kernels.

        Args:
            qkv: (B, n, 3 * C) or (B, windows, n, 3 * C).
            bias: (heads, n, n) or None.
            blocked: See :class:`Segment`.

        Returns:
            (B, windows * n, C).
        """
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))
        if qkv.ndim == 5:
            qkv = qkv.unsqueeze(1)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # (3, B, windows, heads, n, c)
        # Fused kernels take four dimensions, of the bias too. Windows go beside the
        # images, so that all share one bias; or, where each window has a mask of its
        # own, beside the heads, so that all images share it.
        windows = qkv.shape[2]
        q, k, v = qkv.flatten(1, 2) if blocked is None else qkv.flatten(2, 3)
        if bias is not None:
            bias = bias.to(q.dtype).unsqueeze(0)
        if blocked is not None:
            bias = bias.masked_fill(blocked, float('-inf')).flatten(1, 2)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, bias, dropout)
        if blocked is None:
            out = out.unflatten(0, (-1, windows))
        else:
            out = out.unflatten(1, (windows, -1))
        return out.transpose(2, 3).flatten(3).flatten(1, 2)
