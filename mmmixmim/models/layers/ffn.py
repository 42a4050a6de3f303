"""The feed-forward network (FFN) of a transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from mmmixmim.ops import Linear, in_chunks, linear_gelu


class FFN(nn.Module):
    """Linear layer, GELU, linear layer.

    Args:
        dim: Number of channels C.
        hidden: Number of channels between the linear layers.
        drop: Dropout probability after each linear layer. Defaults to 0.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.hidden = hidden
        self.fc1 = Linear(dim, hidden)
        self.drop1 = nn.Dropout(drop)
        self.fc2 = Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """Transform every token of (..., C) by itself."""
        return in_chunks(self, x, self.hidden)

    def transform(self, x: Tensor) -> Tensor:
        """The FFN itself, on all tokens or on a chunk of them."""
        hidden = self.drop1(linear_gelu(self.fc1, x))  # gelu(fc1(x)): (..., hidden)
        return self.drop2(self.fc2(hidden))  # (..., C)
