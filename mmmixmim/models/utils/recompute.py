"""Save memory in training: compute again what is cheap."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed_input(
    linear: nn.Linear, function: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Apply a linear layer to ``function(x)``, which is not kept.

    The backward pass computes ``function(x)`` again, but not the product:
    ``checkpoint`` stops as soon as it has what it needs. Without gradients, and
    under ``torch.compile``, which decides by itself what to compute again, nothing
    is different from ``linear(function(x))``.

    Args:
        linear: A linear layer.
        function: Something cheap and without randomness: a norm, an activation.
        x: Its argument.

    Returns:
        What the linear layer returns.
    """

    def run(x: Tensor) -> Tensor:
        return linear(function(x))

    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return run(x)
    return checkpoint(run, x, use_reentrant=False, preserve_rng_state=False)
