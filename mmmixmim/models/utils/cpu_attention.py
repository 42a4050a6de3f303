"""Exact attention with a learned bias on a CPU, in little memory.

PyTorch's fused attention has no gradient for the bias, and its plain one writes all
logits to memory. Here a part of the batch whose logits fit the cache goes at a time.
The backward pass computes the weights again, as FlashAttention (arXiv 2205.14135)
does, unless all of a segment fitted at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .windows import Segment

# Bytes of logits at a time. On a CPU with 2 MiB of L2 cache per core, 1 to 8 MiB were
# about equally fast.
CHUNK = 4 * 2**20


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, qkv: Tensor, heads: int, segments: list[Segment], *biases: Tensor
    ) -> Tensor:
        ctx.heads, ctx.segments, ctx.like = heads, segments, qkv.new_empty(0)
        ctx.shape = qkv.shape
        out = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        # What is saved takes the place of qkv, which nothing else needs.
        saved = []
        with torch.autocast('cpu', enabled=False):
            for segment, bias in zip(segments, biases, strict=True):
                target = _windows(out, segment, 1, heads).squeeze(3)
                source = _windows(qkv, segment, 3, heads)
                parts = list(_parts(source))
                for part in parts:
                    operands = _gather(source[part])
                    weights = _weights(operands, bias)
                    _scatter(torch.bmm(weights, operands[2]), target[part])
                    saved += [operands, weights] if len(parts) == 1 else [operands]
        ctx.save_for_backward(*biases, *saved)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        heads, segments = ctx.heads, ctx.segments
        saved = iter(ctx.saved_tensors)
        biases = [next(saved) for _ in segments]
        grad_qkv = ctx.like.new_empty(ctx.shape)
        grad_biases = []
        with torch.autocast('cpu', enabled=False):
            for segment, bias in zip(segments, biases, strict=True):
                above = _windows(grad, segment, 1, heads)
                target = _windows(grad_qkv, segment, 3, heads)
                grad_bias = torch.zeros(bias.shape)
                parts = list(_parts(target))
                for part in parts:
                    q, k, v = operands = next(saved)
                    scale = q.shape[-1] ** -0.5
                    few = len(parts) == 1
                    weights = next(saved) if few else _weights(operands, bias)
                    (grad_out,) = _gather(above[part])
                    grad_v = torch.bmm(weights.transpose(1, 2), grad_out)
                    grad_weights = torch.bmm(grad_out, v.transpose(1, 2))
                    # Through the softmax, as torch.autograd does.
                    grad_logits = torch.ops.aten._softmax_backward_data(
                        grad_weights, weights, -1, weights.dtype
                    )
                    grad_bias += grad_logits.view(-1, *bias.shape).sum(0)
                    grad_q = torch.bmm(grad_logits, k).mul_(scale)
                    grad_k = torch.bmm(grad_logits.transpose(1, 2), q).mul_(scale)
                    for i, each in enumerate((grad_q, grad_k, grad_v)):
                        _scatter(each, target[part][:, :, :, i])
                grad_biases.append(grad_bias.to(bias.dtype))
        return grad_qkv, None, None, *grad_biases


def segment_attention(
    qkv: Tensor, heads: int, segments: list[Segment], biases: list[Tensor]
) -> Tensor:
    """Attend within the windows of each segment.

    All is computed in single precision at least, whatever the type of ``qkv``, so
    logits do not overflow.

    Args:
        qkv: Queries, keys and values (B, N, 3 * C) on the CPU.
        heads: Number of heads.
        segments: The windows, without anything blocked.
        biases: What is added to each segment's logits, (heads, n, n).

    Returns:
        (B, N, C).
    """
    return _SegmentAttention.apply(qkv, heads, segments, *biases)


def _windows(tokens: Tensor, segment: Segment, parts: int, heads: int) -> Tensor:
    """View a segment's (B, N, parts * C) as (B, windows, n, parts, heads, c)."""
    return (
        tokens[:, segment.tokens]
        .unflatten(2, (parts, heads, -1))
        .unflatten(1, (segment.windows, segment.length))
    )


def _parts(source: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of images and windows whose logits are at most ``CHUNK`` bytes."""
    batch, windows, length, _, heads, _ = source.shape
    step = max(1, CHUNK // (4 * heads * length**2))
    images = max(1, step // windows)
    for image in range(0, batch, images):
        for window in range(0, windows, step):
            yield slice(image, image + images), slice(window, window + step)


def _gather(part: Tensor) -> Tensor:
    """Copy (b, w, n, parts, heads, c) to (parts, b * w * heads, n, c)."""
    dtype = torch.promote_types(part.dtype, torch.float32)
    part = part.permute(3, 0, 1, 4, 2, 5)
    part = part.to(dtype, memory_format=torch.contiguous_format)
    return part.contiguous().flatten(1, 3)


def _scatter(part: Tensor, target: Tensor) -> None:
    """Copy (b * w * heads, n, c) to (b, w, n, heads, c)."""
    b, w, n, heads, c = target.shape
    target.copy_(part.view(b, w, heads, n, c).transpose(2, 3))


def _weights(operands: Tensor, bias: Tensor) -> Tensor:
    """Attention weights (b * w * heads, n, n) of what :func:`_gather` copied."""
    q, k, _ = operands
    logits = q.new_empty(len(q) // len(bias), *bias.shape).copy_(bias).flatten(0, 1)
    # Unlike baddbmm_, PyTorch's counter of operations knows this.
    scale = q.shape[-1] ** -0.5
    torch.baddbmm(logits, q, k.transpose(1, 2), alpha=scale, out=logits)
    return torch.softmax(logits, -1, out=logits)
