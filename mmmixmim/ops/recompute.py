"""LayerNorm and GELU whose outputs the backward pass recomputes.

Both are cheap to compute, and their outputs take 6 of the 16 numbers per token and
channel that a transformer block would store for its backward pass. Each op below
notes on its output how to compute it again; :class:`~mmmixmim.ops.Linear` then stores
that recipe instead of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .switch import runs_eagerly


class Recipe(NamedTuple):
    """How to compute a tensor again: ``function(source)``.

    ``gradient(grad, source)``, if there is one, turns the gradient of the tensor into
    that of ``source`` in place.
    """

    function: Callable[[Tensor], Tensor]
    source: Tensor
    version: int
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm``; a following :class:`~mmmixmim.ops.Linear` recomputes it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C)."""
        return _note(super().forward(x), super().forward, x)


def gelu(x: Tensor) -> Tensor:
    """``F.gelu``; a following :class:`~mmmixmim.ops.Linear` recomputes it.

    That layer sends its gradient straight to ``x``. To watch the gradient of the
    output, register a hook on it, or ``retain_grad``, before the layer runs.
    """
    return _note(F.gelu(x), F.gelu, x, _gelu_gradient)


def recipe_of(x: Tensor) -> Recipe | None:
    """How to compute ``x`` again, None if nothing is known or ``x`` was changed."""
    recipe = getattr(x, '_recipe', None)
    return recipe if recipe and recipe.version == x._version else None


def _gelu_gradient(grad: Tensor, source: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward.grad_input(grad, source, grad_input=grad)


def _note(
    out: Tensor,
    function: Callable[[Tensor], Tensor],
    source: Tensor,
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    if runs_eagerly() and torch.is_grad_enabled():
        out._recipe = Recipe(function, source, out._version, gradient)
    return out
