"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from .recompute import recomputed_input


class MLP(nn.Module):
    """Linear layer, GELU, linear layer.

    Args:
        dim: Number of channels.
        hidden: Number of channels between the layers.
        drop: Dropout probability after each layer.
    """

    def __init__(self, dim: int, hidden: int, drop: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(
        self, x: Tensor, norm: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Transform tokens (..., dim), after ``norm`` if there is one.

        The outputs of ``norm`` and of GELU are not kept for the backward pass.
        """
        hidden = recomputed_input(self.fc1, norm, x) if norm else self.fc1(x)
        if self.training and self.drop1.p > 0:
            out = self.fc2(self.drop1(self.act(hidden)))
        else:
            out = recomputed_input(self.fc2, self.act, hidden)
        return self.drop2(out)
