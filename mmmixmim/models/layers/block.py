"""The transformer block of the encoder and the decoder."""

from __future__ import annotations

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmixmim.validation import UserError

from .attention import WindowAttention
from .ffn import FFN
from .norm import Norm


class TransformerBlock(nn.Module):
    """Attention and FFN, each pre-normalised and residual.

    Args:
        dim: Number of channels C.
        attn: The attention, of any kind that maps (B, N, C) to (B, N, C).
        mlp_ratio: FFN expansion ratio. Defaults to 4.
        drop: Dropout probability after each linear layer of the FFN. Defaults to 0.
        drop_path: Probability of dropping a residual branch for an image (stochastic
            depth). Defaults to 0.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        if hidden < 1:
            raise UserError(
                f'mlp_ratio {mlp_ratio:g} gives an FFN of {dim} channels '
                f'{hidden} hidden ones: use a larger ratio.'
            )
        self.norm1 = Norm(dim)
        self.attn = attn
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = Norm(dim)
        self.mlp = FFN(dim, hidden, drop)

    def forward(self, x: Tensor, *layout) -> Tensor:
        """Transform tokens (B, N, C).

        Args:
            x: The tokens.
            *layout: What the attention takes besides: the window layout, or nothing.
        """
        x = x + self.drop_path(self.attn(self.norm1(x), *layout))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_transformer_weights(module: nn.Module) -> None:
    """Initialise one module as the authors do; for ``nn.Module.apply``.

    Linear layers: Xavier-uniform weights and zero biases. LayerNorm: ones and zeros.
    Bias tables: truncated normal, standard deviation 0.02. Anything else, the patch
    embedding's convolution included, keeps PyTorch's initialisation.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)
