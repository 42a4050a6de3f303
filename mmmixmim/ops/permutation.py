"""Reorder tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .switch import is_plain


def permute(tokens: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Compute ``tokens[:, order]``.

    The backward pass of plain indexing adds gradients up, since an index could repeat.
    In a permutation none does, so here it is an indexing too.

    Args:
        tokens: (B, N, C).
        order: Permutation of the N places, (N).
        inverse: Its inverse.

    Returns:
        (B, N, C).
    """
    # A saved trace holds no function of autograd.
    if is_plain() or torch.jit.is_tracing():
        return tokens[:, order]
    return _Permute.apply(tokens, order, inverse)


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return tokens.index_select(1, order)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return permute(grad, inverse, order), None, None
