"""Tokens in another order."""

from __future__ import annotations

import torch
from torch import Tensor


class _Permutation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tokens: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return tokens.index_select(1, order)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return permute(grad, inverse, order), None, None


def permute(tokens: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """Put tokens into another order.

    PyTorch's own indexing adds gradients up in its backward pass, as places could
    repeat. Here none does, so it is an indexing too.

    Args:
        tokens: (B, N, C).
        order: Permutation of the N places, (N).
        inverse: Its inverse.

    Returns:
        ``tokens[:, order]``.
    """
    return _Permutation.apply(tokens, order, inverse)
