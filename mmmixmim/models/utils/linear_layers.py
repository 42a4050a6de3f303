"""Linear layers, by oneDNN on a CPU, whose input may be computed again.

In single precision PyTorch hands the products of linear layers to its BLAS, which adds
them to a bias written before. oneDNN, which PyTorch carries too and takes for low
precision and for compiled models, adds the bias and applies GELU while the cache holds
a part of the result. Its sums are in single precision as well.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import flop_registry, register_flop_formula

Function = Callable[[Tensor], Tensor]

# What torch.compile calls for linear layers on a CPU, where PyTorch has oneDNN.
PRODUCT = getattr(torch.ops.mkldnn, '_linear_pointwise', None)
if not torch.backends.mkldnn.is_available():
    PRODUCT = None


def linear(layer: nn.Module, x: Tensor, before: Function | None = None) -> Tensor:
    """Apply a linear layer to ``x``, or to ``before(x)``.

    The backward pass computes ``before(x)`` again instead of keeping it, but not the
    product. Under ``torch.compile``, which decides by itself what to compute again,
    nothing is different from ``layer(before(x))``.

    Args:
        layer: A linear layer. By oneDNN go single precision on a CPU and
            ``nn.Linear`` itself without hooks; all else is called as it is.
        x: Tokens (..., channels).
        before: Something cheap and without randomness, as a norm or an activation.
            oneDNN's way knows ``nn.LayerNorm`` and ``F.gelu``.

    Returns:
        What the layer returns.
    """
    if _by_onednn(layer, x, before):
        if not torch.is_grad_enabled():
            return _product(before(x) if before else x, layer.weight, layer.bias)
        if isinstance(before, nn.LayerNorm):
            norm = (before.normalized_shape, before.weight, before.bias, before.eps)
            return _NormLinear.apply(x, layer.weight, layer.bias, *norm)
        function = _GeluLinear if before else _Linear
        return function.apply(x, layer.weight, layer.bias)
    if before is None:
        return layer(x)
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return layer(before(x))
    # It stops before the product, as soon as it has what that kept.
    return checkpoint(
        lambda x: layer(before(x)), x, use_reentrant=False, preserve_rng_state=False
    )


def linear_gelu(layer: nn.Module, x: Tensor, before: Function | None = None) -> Tensor:
    """Apply GELU to what :func:`linear` returns; without gradients in one pass."""
    if torch.is_grad_enabled() or not _by_onednn(layer, x, before):
        return F.gelu(linear(layer, x, before))
    return _product(before(x) if before else x, layer.weight, layer.bias, 'gelu')


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        grad_x = _grad_input(grad, weight) if ctx.needs_input_grad[0] else None
        return grad_x, *_grad_layer(grad, x, ctx.needs_input_grad)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(F.gelu(x), weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        grads = _grad_layer(grad, F.gelu(x), ctx.needs_input_grad)
        if not ctx.needs_input_grad[0]:
            return None, *grads
        grad_x = _grad_input(grad, weight)
        torch.ops.aten.gelu_backward.grad_input(grad_x, x, grad_input=grad_x)
        return grad_x, *grads


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        shape: tuple[int, ...],
        norm_weight: Tensor | None,
        norm_bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.shape, ctx.eps = shape, eps
        normed, *statistics = torch.native_layer_norm(
            x, shape, norm_weight, norm_bias, eps
        )
        ctx.save_for_backward(x, weight, norm_weight, norm_bias, *statistics)
        return _product(normed, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        x, weight, *norm, mean, rstd = ctx.saved_tensors
        needs = ctx.needs_input_grad
        normed, _, _ = torch.native_layer_norm(x, ctx.shape, *norm, ctx.eps)
        grads = _grad_layer(grad, normed, needs)
        wanted = [needs[0], needs[4], needs[5]]
        grad_x = grad_norm_weight = grad_norm_bias = None
        if any(wanted):
            grad_normed = _grad_input(grad, weight)
            grad_x, grad_norm_weight, grad_norm_bias = (
                torch.ops.aten.native_layer_norm_backward(
                    grad_normed, x, ctx.shape, mean, rstd, *norm, wanted
                )
            )
        return grad_x, *grads, None, grad_norm_weight, grad_norm_bias, None


def _grad_input(grad: Tensor, weight: Tensor) -> Tensor:
    return _product(grad, weight.t())


def _grad_layer(
    grad: Tensor, x: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the weight and the bias, ``needs[1]`` and ``needs[2]``."""
    grad, x = grad.flatten(0, -2), x.flatten(0, -2)
    grad_weight = grad_bias = None
    # oneDNN copies the transposed gradient, which pays if that is the smaller one.
    if needs[1] and grad.shape[1] < x.shape[1]:
        grad_weight = _product(grad.t(), x.t())
    elif needs[1]:
        grad_weight = torch.mm(grad.t(), x)
    if needs[2]:
        grad_bias = grad.sum(0)
    return grad_weight, grad_bias


def _by_onednn(layer: nn.Module, x: Tensor, before: Function | None) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return (
        PRODUCT is not None
        and x.device.type == 'cpu'
        and x.dtype == torch.float32
        and x.ndim > 1
        and not torch.is_autocast_enabled('cpu')
        and _is_plain(layer, nn.Linear)
        and (before is None or before is F.gelu or _is_plain(before, nn.LayerNorm))
    )


def _is_plain(module: Function, kind: type) -> bool:
    """Whether it is of this very type and precision, and nothing hooks into it."""
    return (
        type(module) is kind
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and all(
            each.dtype == torch.float32
            for each in module._parameters.values()
            if each is not None
        )
    )


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = 'none'
) -> Tensor:
    """Product (..., outputs) of (..., channels) and (outputs, channels)."""
    return PRODUCT(x, weight, bias, activation, [], 'none')


if PRODUCT is not None and PRODUCT not in flop_registry:

    @register_flop_formula(PRODUCT)
    def _count(x_shape: torch.Size, weight_shape: torch.Size, *args, **kwargs) -> int:
        return 2 * x_shape.numel() * weight_shape[0]
