"""Linear layers for ``torch.compile``: gradients in an order that Inductor fuses.

A compiler gets ``F.linear`` and its gradients as they are in :mod:`.linear_layer`, but
for what would take a kernel of its own: see :func:`_gradients`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .switch import is_plain, runs_on_cpu


def compiled_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``, in training with gradients in an order that Inductor fuses."""
    if not fuses(x, weight, bias):
        return F.linear(x, weight, bias)
    return _Linear.apply(_in_autocast(x), weight, bias)


def compiled_heads(
    x: Tensor, weight: Tensor, bias: Tensor, heads: int, head_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, see :func:`mmmixmim.ops.linear_qkv`."""
    return _Heads.apply(_in_autocast(x), weight, bias, heads, head_first)


def fuses(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a training step is being compiled, and the bias learns."""
    # An exported graph would lose them. Dynamo takes is_exporting() for True.
    exporting = getattr(torch.compiler, '_is_exporting_flag', True)
    return (
        torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and not (exporting or is_plain())
        and bias is not None
        and bias.requires_grad
        and x.ndim > 2
        # F.linear refuses other types.
        and (weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type))
        and torch.float64 not in (weight.dtype, x.dtype)
    )


def _in_autocast(x: Tensor) -> Tensor:
    """Cast as autocast does."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.dtype = weight.dtype
        weight = weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias.to(x.dtype))

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _gradients(grad, *ctx.saved_tensors, ctx.dtype)


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, heads: int, head_first: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dtype = weight.dtype
        ctx.save_for_backward(x, weight.to(x.dtype))
        if head_first:
            weight, bias = (
                each.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
                for each in (weight, bias)
            )
        out = F.linear(x, weight.to(x.dtype), bias.to(x.dtype))
        if head_first:
            return out.unflatten(-1, (heads, 3, -1)).unbind(3)
        return out.unflatten(-1, (3, heads, -1)).unbind(2)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple:
        grad = torch.cat([each.flatten(2) for each in grads], dim=-1)
        return *_gradients(grad, *ctx.saved_tensors, ctx.dtype), None, None


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a linear layer's input, weight and bias, in an order for Inductor.

    The products come first, so that it writes ``grad`` to memory for them. The bias
    sums up each image's tokens, and then the images. Inductor computes the former in
    the kernel that writes ``grad``. A sum over all tokens would read it again.
    """
    rows = grad.flatten(0, -2)
    grad_x = (rows @ weight).view_as(x)
    grad_weight = _mm(rows.t(), x.flatten(0, -2), dtype)
    sums = grad.flatten(1, -2).sum(1, dtype=dtype)  # (B, out_features)
    return grad_x, grad_weight, sums.sum(0)


def _mm(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """``a @ b`` in ``dtype``, which CUDA's GEMMs write themselves if it is float32."""
    on_cuda = a.device.type in ('cpu', 'cuda') and not runs_on_cpu(a)
    if (
        on_cuda
        and dtype == torch.float32
        and a.dtype in (torch.float16, torch.bfloat16)
        and hasattr(torch.ops.aten.mm, 'dtype')  # PyTorch 2.8
        and torch.version.hip is None
    ):
        return torch.mm(a, b, out_dtype=dtype)
    return (a @ b).to(dtype)
