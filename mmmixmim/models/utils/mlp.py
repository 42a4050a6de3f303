"""The two-layer perceptron of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear_layers import linear, linear_gelu

# Bytes of hidden channels at a time on a CPU without gradients. For 32 images of 224
# pixels 4, 8 and 16 MiB were equally fast, and all at once 10 % slower. For one image
# glibc takes memory from the system anew for every pass if it is 16, not if it is 4.
CHUNK = 4 * 2**20


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
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(
        self, x: Tensor, norm: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Transform tokens (..., dim), after ``norm`` if there is one.

        The outputs of ``norm`` and of GELU are not kept for the backward pass.
        """
        size = x.shape[:-1].numel() * self.fc1.out_features * x.element_size()
        if not _is_plain_inference(x) or size <= CHUNK or self._has_hooks():
            return self._transform(x, norm)
        parts = x.flatten(0, -2).chunk(-(-size // CHUNK))
        return torch.cat([self._transform(part, norm) for part in parts]).view(x.shape)

    def _has_hooks(self) -> bool:
        """Whether something watches the layers, which should see all tokens at once."""
        layers = (self.fc1, self.drop1, self.fc2, self.drop2)
        return any(each._forward_hooks or each._forward_pre_hooks for each in layers)

    def _transform(self, x: Tensor, norm: Callable[[Tensor], Tensor] | None) -> Tensor:
        if not torch.is_grad_enabled() or (self.training and self.drop1.p > 0):
            hidden = self.drop1(linear_gelu(self.fc1, x, before=norm))
            return self.drop2(linear(self.fc2, hidden))
        hidden = linear(self.fc1, x, before=norm)
        return self.drop2(linear(self.fc2, hidden, before=F.gelu))


def _is_plain_inference(x: Tensor) -> bool:
    """Whether it runs eagerly on a CPU and without gradients."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return x.device.type == 'cpu' and not traced and not torch.is_grad_enabled()
