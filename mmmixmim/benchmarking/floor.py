"""The GEMMs of a model's linear layers, as a lower bound of its time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from mmmixmim.ops import onednn
from mmmixmim.ops.linear_layer import ONEDNN_LINEAR

from .timing import interleave


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

    No bias and no autograd. Each product of each shape runs by the fastest of
    :func:`ways_to_multiply`, timed here in turns.

    Args:
        shapes: Counts from :func:`linear_shapes`.
        backward: Also run the GEMMs for the gradients of input and weight.
        device: Device to run on.
        dtype: dtype of the matrices.
    """
    gemms = []
    for (rows, inner, outer), times in shapes.items():
        x, weight, grad = (
            torch.randn(size, device=device, dtype=dtype)
            for size in ((rows, inner), (outer, inner), (rows, outer))
        )
        products = [(x, weight.t())]  # the output, then both gradients
        if backward:
            products += [(grad, weight), (grad.t(), x)]
        gemms += [(_fastest(a, b), times) for a, b in products]

    @torch.no_grad()
    def run() -> None:
        for gemm, times in gemms:
            for _ in range(times):
                gemm()

    return run


def ways_to_multiply(a: Tensor, b: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Functions that compute ``a @ b``, by the library and what it reads.

    On a CPU where :func:`onednn.gemms` changes nothing, some are the same.
    """
    ways = {'mm': partial(torch.mm, a, b)}
    if a.device.type == 'cpu' and ONEDNN_LINEAR is not None:
        ways['oneDNN, rows'] = lambda: ONEDNN_LINEAR(
            a.contiguous(), b.t(), None, 'none', [], 'none'
        )
        ways['oneDNN'] = lambda: _onednn_mm(a, b)
        ways['oneDNN, transposed'] = lambda: _onednn_mm(b.t(), a.t()).t()
    return ways


def _onednn_mm(a: Tensor, b: Tensor) -> Tensor:
    with onednn.gemms(a):
        return a @ b


@torch.no_grad()
def _fastest(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """Return the fastest function that computes ``a @ b``."""
    ways = ways_to_multiply(a, b)
    if len(ways) == 1:
        return ways['mm']
    seconds = interleave(ways, 5)
    return ways[min(seconds, key=lambda name: median(seconds[name]))]
