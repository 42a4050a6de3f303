"""The GEMMs of a model's linear layers, as a lower bound of its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn


def linear_shapes(model: nn.Module, run: Callable[[], object]) -> Counter:
    """Count the GEMM shapes of a model's linear layers in a forward pass.

    Args:
        model: The model.
        run: Function that runs its forward, compiled or eager.

    Returns:
        The number of GEMMs of each shape (rows, in channels, out channels).
    """
    shapes = Counter()

    def count(layer: nn.Linear, args: tuple) -> None:
        rows = args[0].numel() // layer.in_features
        shapes[rows, layer.in_features, layer.out_features] += 1

    hooks = [
        layer.register_forward_pre_hook(count)
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    # Compiled models skip the hooks.
    with torch.no_grad(), torch.compiler.set_stance('force_eager'):
        run()
    for hook in hooks:
        hook.remove()
    return shapes


def gemm_floor(
    shapes: Counter,
    backward: bool,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    """Make a function that runs bare GEMMs of the given shapes.

    No bias, no autograd, no memory allocation: nothing that calls ``torch.mm``, as
    PyTorch's linear layers do, can be faster.

    Args:
        shapes: Counts from :func:`linear_shapes`.
        backward: Also run the GEMMs for the gradients of input and weight.
        device: Device to run on.
        dtype: dtype of the matrices.
    """
    operands = {}
    for shape in shapes:
        rows, inner, outer = shape
        operands[shape] = [
            torch.randn(size, device=device, dtype=dtype)
            for size in ((rows, inner), (outer, inner), (rows, outer))
        ]
    outputs = {
        shape: [torch.empty_like(matrix) for matrix in matrices]
        for shape, matrices in operands.items()
    }

    @torch.no_grad()
    def run() -> None:
        for shape, times in shapes.items():
            x, weight, grad = operands[shape]
            grad_x, grad_weight, y = outputs[shape]
            for _ in range(times):
                torch.mm(x, weight.t(), out=y)
            for _ in range(times if backward else 0):
                torch.mm(grad, weight, out=grad_x)
                torch.mm(grad.t(), x, out=grad_weight)

    return run


def gemm_flops(shapes: Counter, backward: bool) -> int:
    """Count the FLOPs of :func:`gemm_floor`, two per multiply-accumulate."""
    forward = sum(
        2 * rows * inner * outer * times
        for (rows, inner, outer), times in shapes.items()
    )
    return forward * (3 if backward else 1)
