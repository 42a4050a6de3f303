"""The transformer block that the encoder and the decoder share."""

from __future__ import annotations

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from .attention import Attention
from .mlp import MLP
from .windows import WindowLayout


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
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads, window, qkv_bias, attn_drop, drop)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor, layout: WindowLayout | None = None) -> Tensor:
        """Transform tokens (B, N, C) that ``layout`` arranged."""
        x = x + self.drop_path(self.attn(x, layout, norm=self.norm1))
        return x + self.drop_path(self.mlp(x, norm=self.norm2))


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
