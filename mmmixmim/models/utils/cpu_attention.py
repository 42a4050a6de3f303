"""Exact attention with a learned bias on a CPU, trained in little memory.

There PyTorch's fused attention has no gradient for the bias, and its plain one writes
all logits to memory. Here a part of the windows whose logits fit the cache goes at a
time, and the backward pass computes the weights of large windows again, as
FlashAttention (arXiv 2205.14135) does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .windows import Segment

# Bytes of logits at a time. On a CPU with 2 MiB of L2 cache per core, 1 to 8 MiB were
# about equally fast.
CHUNK = 4 * 2**20

# Weights of windows of at most so many tokens are kept for the backward pass, 14x14 in
# pretraining and fine-tuning. With channels C and heads of C / 32 that is at most 6 C
# numbers per token, beside 10 C for the rest of a block; larger windows need more.
KEPT_LENGTH = 196


class _SegmentAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, qkv: Tensor, heads: int, segments: list[Segment], *biases: Tensor
    ) -> Tensor:
        ctx.heads, ctx.segments, ctx.dtype = heads, segments, qkv.dtype
        result = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        saved = []
        with torch.autocast('cpu', enabled=False):
            for segment, bias in zip(segments, biases, strict=True):
                operands = _gather(_windows(qkv, segment, 3, heads))
                out = torch.empty_like(operands[2])
                kept = segment.length <= KEPT_LENGTH
                if kept:
                    room = out.new_empty(len(out), segment.length, segment.length)
                else:
                    room = _room(out)
                for rows, few in _parts(out, heads):
                    q, k, v = operands[:, rows]
                    place = room[rows] if kept else room
                    torch.bmm(_weights(q, k, bias[few], place), v, out=out[rows])
                _scatter(out[None], _windows(result, segment, 1, heads))
                saved += [operands, room if kept else None]
        # What is saved takes the place of qkv, which nothing else needs.
        ctx.save_for_backward(*biases, *saved)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        heads, segments = ctx.heads, ctx.segments
        # Once, as checkpointing asks for.
        saved = ctx.saved_tensors
        biases, saved = saved[: len(segments)], iter(saved[len(segments) :])
        grad_qkv = grad.new_empty(*grad.shape[:2], 3 * grad.shape[2], dtype=ctx.dtype)
        grad_biases = []
        with torch.autocast('cpu', enabled=False):
            for segment, bias in zip(segments, biases, strict=True):
                operands, kept = next(saved), next(saved)
                (above,) = _gather(_windows(grad, segment, 1, heads))
                grads = torch.empty_like(operands)
                grad_bias = torch.zeros_like(bias, dtype=above.dtype)
                room = _room(above) if kept is None else None
                grad_room = _room(above)
                for rows, few in _parts(above, heads):
                    (q, k, v), up = operands[:, rows], above[rows]
                    if kept is None:
                        weights = _weights(q, k, bias[few], room)
                    else:
                        weights = kept[rows]
                    torch.bmm(weights.transpose(1, 2), up, out=grads[2, rows])
                    grad_logits = grad_room[: len(q)]
                    torch.bmm(up, v.transpose(1, 2), out=grad_logits)
                    torch.ops.aten._softmax_backward_data.out(
                        grad_logits, weights, -1, q.dtype, grad_input=grad_logits
                    )
                    torch.bmm(grad_logits, k, out=grads[0, rows])
                    torch.bmm(grad_logits.transpose(1, 2), q, out=grads[1, rows])
                    _add_rows(grad_bias[few], grad_logits)
                grads[:2].mul_(above.shape[-1] ** -0.5)
                _scatter(grads, _windows(grad_qkv, segment, 3, heads))
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
    """View a segment's (B, N, parts * C) as (parts, B, windows, heads, n, c)."""
    tokens = tokens[:, segment.tokens].unflatten(2, (parts, heads, -1))
    tokens = tokens.unflatten(1, (segment.windows, segment.length))
    return tokens.permute(3, 0, 1, 4, 2, 5)


def _gather(view: Tensor) -> Tensor:
    """Copy (parts, B, windows, heads, n, c) to (parts, B * windows * heads, n, c)."""
    dtype = torch.promote_types(view.dtype, torch.float32)
    return view.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(
        1, 3
    )


def _scatter(rows: Tensor, view: Tensor) -> None:
    """Copy back what :func:`_gather` made."""
    view.copy_(rows.view(view.shape))


def _part_size(rows: Tensor) -> int:
    """How many of (windows * heads, n, c) have at most ``CHUNK`` bytes of logits."""
    return max(1, CHUNK // (rows.element_size() * rows.shape[1] ** 2))


def _room(rows: Tensor) -> Tensor:
    """Memory for the logits of a part, which stays in the cache."""
    size = min(len(rows), _part_size(rows))
    return rows.new_empty(size, rows.shape[1], rows.shape[1])


def _parts(rows: Tensor, heads: int) -> Iterator[tuple[slice, slice]]:
    """Slices of (windows * heads, n, c), and the heads of each window in them."""
    step = _part_size(rows)
    if step >= heads:
        step -= step % heads
        for start in range(0, len(rows), step):
            yield slice(start, start + step), slice(None)
        return
    for start in range(0, len(rows), heads):
        for head in range(0, heads, step):
            few = slice(head, min(head + step, heads))
            yield slice(start + few.start, start + few.stop), few


def _weights(q: Tensor, k: Tensor, bias: Tensor, room: Tensor) -> Tensor:
    """Weights of (windows * heads, n, c), in ``room``."""
    logits = room[: len(q)]
    logits.unflatten(0, (-1, len(bias))).copy_(bias)
    # Unlike baddbmm_, PyTorch's counter of operations knows this.
    torch.baddbmm(logits, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5, out=logits)
    return torch.softmax(logits, -1, out=logits)


def _add_rows(total: Tensor, rows: Tensor) -> None:
    """Add (windows * heads, n, n) to (heads, n, n), in one pass."""
    rows = rows.view(-1, total.numel())
    total.view(-1).addmv_(rows.t(), rows.new_ones(len(rows)))
