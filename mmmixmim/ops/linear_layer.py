"""Linear layers: oneDNN on the CPU, and inputs that the backward pass recomputes.

For float32 PyTorch hands the GEMMs of linear layers to its BLAS, MKL. oneDNN, which
PyTorch carries too and uses for low precision, adds the bias while the result is in
the cache. Which library multiplies faster depends on the CPU and on the product: see
docs/performance.md. The rule is fixed, since the two round differently.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils.flop_counter import flop_registry, register_flop_formula

from . import onednn
from .compiled_linear import compiled_heads, compiled_linear, fuses
from .recompute import gelu, recipe_of
from .switch import (
    first_gradients_only,
    is_watched,
    runs_eagerly,
    runs_on_cpu,
)

# The operator that torch.compile calls for linear layers on a CPU. It is private to
# PyTorch: where it is missing, F.linear runs.
ONEDNN_LINEAR = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
if not torch.backends.mkldnn.is_available():
    ONEDNN_LINEAR = None

_PLAIN = (Tensor, nn.Parameter, FakeTensor, type(None))


class Linear(nn.Linear):
    """``nn.Linear`` that computes by :func:`linear`."""

    recompute = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias``.

    Args:
        x: (..., in_features). If it is the output of :class:`~mmmixmim.ops.LayerNorm`
            or :func:`~mmmixmim.ops.gelu`, the backward pass recomputes it instead of
            storing it.
        weight: (out_features, in_features).
        bias: (out_features) or None.

    Returns:
        (..., out_features).
    """
    if not runs_eagerly():
        return compiled_linear(x, weight, bias)
    if not torch.is_grad_enabled():
        return _forward(x, weight, bias)
    recipe = recipe_of(x) if x.ndim > 1 and _are_plain(x, weight, bias) else None
    if recipe is None and not _uses_onednn(x, weight, bias):
        return F.linear(x, weight, bias)
    # Send the gradient straight to the source, unless a hook or retain_grad needs that
    # of x.
    fused = recipe and recipe.gradient and not (x._backward_hooks or x.retains_grad)
    root = recipe.source if fused else x
    # On a CPU, cast the weight once for both passes. A GPU casts it twice, which takes
    # less memory. Autocast leaves float64 alone.
    casts = torch.is_autocast_enabled('cpu') and x.dtype != torch.float64
    if casts and runs_on_cpu(x):
        weight = weight.to(torch.get_autocast_dtype('cpu'))
    return _Linear.apply(root, weight, bias, x.detach(), recipe, fused)


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """Compute ``gelu(layer(x))``.

    At inference oneDNN applies GELU while the result is in the cache. A layer with
    hooks or another ``forward`` is called normally, since they want its own output.

    Args:
        layer: The linear layer.
        x: (..., in_features).

    Returns:
        (..., out_features).
    """
    if (
        torch.is_grad_enabled()
        or not runs_eagerly()
        or type(layer) is not Linear
        or is_watched(layer)
        or not _uses_onednn(x, layer.weight, layer.bias)
    ):
        return gelu(layer(x), getattr(layer, 'recompute', None))
    return ONEDNN_LINEAR(x, layer.weight, layer.bias, 'gelu', [], 'none')


def linear_qkv(
    layer: nn.Module, x: Tensor, heads: int, head_first: bool = False
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values: the thirds of ``layer(x)``.

    Args:
        layer: The linear layer, from C to 3 * C features.
        x: (B, N, C).
        heads: Number of heads.
        head_first: Whether a compiler lets the three of a head stand side by side in
            memory. Then the heads of several tokens can be viewed as one dimension,
            without a copy. Defaults to False.

    Returns:
        ``layer(x)``, (B, N, 3 * C). A compiled training step gets the three apart, each
        (B, N, heads, C / heads).
    """
    if (
        type(layer) is not Linear
        or is_watched(layer)
        or not fuses(x, layer.weight, layer.bias)
    ):
        return layer(x)
    return compiled_heads(x, layer.weight, layer.bias, heads, head_first)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, root, weight, bias, x, recipe, fused) -> Tensor:
        ctx.function = recipe.function if recipe else None
        ctx.gradient = recipe.gradient if fused else None
        ctx.x_dtype = x.dtype
        ctx.autocast = _autocast_state(x.device.type)
        # Detached, parameters stay those of the forward pass where .data is replaced.
        # One that is changed in place is an error, as everywhere in autograd.
        source, *parameters = (
            None if each is None else each.detach()
            for each in ((recipe.source, *recipe.parameters) if recipe else (x,))
        )
        ctx.save_for_backward(weight, source, *parameters)
        # The output is a view, which autograd would forbid to change in place.
        return _forward(x, weight, bias).data

    @staticmethod
    @first_gradients_only
    def backward(ctx, grad: Tensor) -> tuple:
        weight, source, *parameters = ctx.saved_tensors
        needs_root, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_root = grad_weight = grad_bias = None
        if needs_root:
            grad_root = _grad_input(grad, weight.to(grad.dtype)).to(ctx.x_dtype)
            if ctx.gradient is not None:
                grad_root = ctx.gradient(grad_root, source)
        rows = grad.flatten(0, -2)  # (N, out_features)
        if needs_weight:
            x = source
            if ctx.function is not None:
                with ctx.autocast():
                    x = ctx.function(source, *parameters)
            x = x.flatten(0, -2).to(grad.dtype)  # (N, in_features)
            grad_weight = _grad_weight(rows, x).to(weight.dtype)
        if needs_bias:
            grad_bias = rows.sum(0).to(weight.dtype)
        return grad_root, grad_weight, grad_bias, None, None, None


def _autocast_state(device: str) -> Callable:
    """Return what enters the current autocast state of a device again."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext
    return partial(
        torch.autocast,
        device,
        torch.get_autocast_dtype(device),
        torch.is_autocast_enabled(device),
    )


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if _uses_onednn(x, weight, bias):
        return ONEDNN_LINEAR(x, weight, bias, 'none', [], 'none')
    return F.linear(x, weight, bias)


def _grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    """``grad @ weight``, (..., in_features)."""
    if onednn.INTEL_MKL:
        return F.linear(grad, weight.t())
    return _forward(grad, weight.t())


def _grad_weight(grad: Tensor, x: Tensor) -> Tensor:
    """``grad.T @ x``, (out_features, in_features)."""
    with onednn.gemms(grad):
        return grad.t() @ x


def _are_plain(*tensors: Tensor | None) -> bool:
    """Whether no tensor is of a subclass, which may have products of its own.

    Fake tensors, which plans are made with, stand for plain ones.
    """
    return all(type(each) in _PLAIN for each in tensors)


def _uses_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return (
        ONEDNN_LINEAR is not None
        and torch.backends.mkldnn.enabled
        and runs_on_cpu(x)
        and _are_plain(x, weight, bias)
        and x.ndim > 1
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and not torch.is_autocast_enabled('cpu')
    )


if ONEDNN_LINEAR is not None and ONEDNN_LINEAR not in flop_registry:

    @register_flop_formula(ONEDNN_LINEAR)
    def _count(x_shape: torch.Size, weight_shape: torch.Size, *args, **kwargs) -> int:
        return 2 * x_shape.numel() * weight_shape[0]
