"""Attention over all tokens, and inside windows with a learned bias.

The equation of windows is :func:`plain_attention`. It runs everywhere but in training
on a CPU without masks and dropout. There PyTorch's fused attention has no gradient for
the bias, and its plain one writes all logits to memory. So :class:`_TrainedAttention`
computes the same in cache-sized chunks of windows, and recomputes the attention weights
in the backward pass, as FlashAttention (arXiv 2205.14135) does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import flop_registry

from . import onednn
from .switch import first_gradients_only, runs_eagerly, runs_on_cpu

# A run of tokens, and the number of windows of equal size in it.
Span = tuple[slice, int]

# Queries, keys and values, each (B, N, heads, c).
Heads = tuple[Tensor, Tensor, Tensor]

# Bytes of logits and queries per chunk. On a CPU with 1 MiB of L2 cache per core, 8 MiB
# were as fast, and 1 and 2 up to 5 % slower.
CHUNK = 4 * 2**20


def full_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    r"""Compute :math:`\mathrm{softmax}(q k^T / \sqrt{c})\, v` over all tokens.

    In training on a CPU it computes in float32 at least.

    Source: "Attention Is All You Need" (arXiv 1706.03762), equation 1.

    Args:
        q: (B, heads, N, c).
        k: (B, heads, N, c).
        v: (B, heads, N, c).
        dropout: Dropout probability of the weights. Defaults to 0.

    Returns:
        (B, heads, N, c), in the type of ``q``.
    """
    if not (runs_eagerly() and runs_on_cpu(q) and torch.is_grad_enabled()):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    # On a CPU, PyTorch's backward kernel is slow in low precision.
    with torch.autocast('cpu', enabled=False):
        dtype = torch.promote_types(q.dtype, torch.float32)
        operands = (each.to(dtype) for each in (q, k, v))
        return F.scaled_dot_product_attention(*operands, dropout_p=dropout).to(q.dtype)


def split_heads(qkv: Tensor | Heads, num_heads: int) -> Heads:
    """Split what :func:`linear_qkv` returns.

    Args:
        qkv: Queries, keys and values (B, N, 3 * C), or three of (B, N, heads, c).
        num_heads: Number of heads.

    Returns:
        Three of (B, N, heads, c).
    """
    if isinstance(qkv, Tensor):
        return qkv.unflatten(-1, (3, num_heads, -1)).unbind(2)
    return qkv


def window_attention(
    qkv: Tensor | Heads,
    num_heads: int,
    spans: Sequence[Span],
    biases: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    dropout: float = 0.0,
) -> Tensor:
    """Attend inside the windows of each span.

    Args:
        qkv: Queries, keys and values (B, N, 3 * C), each head's channels together. Or
            three of (B, N, heads, c), as :func:`linear_qkv` gives them to a compiler.
        num_heads: Number of heads.
        spans: Where windows of n tokens each stand, and how many. Together they cover
            the N tokens in order. Without a mask, a span holds window after window.
            With one, it holds the first token of each window, then the second.
        biases: For each span, what is added to the logits, (heads, n, n).
        masks: For each span, bool (1 or B, windows, 1, n, n), True where a query must
            not see a key; or None.
        dropout: Dropout probability of the weights. Defaults to 0.

    Returns:
        (B, N, C).
    """
    masked = any(mask is not None for mask in masks)
    if isinstance(qkv, Tensor) and runs_eagerly() and torch.is_grad_enabled():
        trained = qkv.requires_grad or any(bias.requires_grad for bias in biases)
        plain = masked or dropout or not runs_on_cpu(qkv)
        if trained and not plain:
            return _TrainedAttention.apply(qkv, num_heads, tuple(spans), *biases)
    outputs = []
    # The gradients of slices would be padded with zeros and added up.
    lengths = [tokens.stop - tokens.start for tokens, _ in spans]
    heads = split_heads(qkv, num_heads)
    parts = zip(*(each.split(lengths, dim=1) for each in heads), strict=True)
    for part, (_, windows), bias, mask in zip(parts, spans, biases, masks, strict=True):
        q, k, v = (_cut(each, windows, mask) for each in part)
        out = plain_attention(q, k, v, bias, mask, dropout)
        outputs.append(_join(out, mask))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    r"""Compute :math:`\mathrm{softmax}(q k^T / \sqrt{c} + b)\, v` in every window.

    Source: Swin (arXiv 2103.14030), equation 4.

    Args:
        q: (B, windows, heads, n, c).
        k: (B, windows, heads, n, c).
        v: (B, windows, heads, n, c).
        bias: (heads, n, n).
        mask: Bool (1 or B, windows, 1, n, n), True where the logit is minus infinity.
        dropout: Dropout probability of the weights.

    Returns:
        (B, windows, heads, n, c).
    """
    windows = q.shape[1]
    bias = _in_aligned_rows(bias, mask, q.dtype)
    # PyTorch's fused kernels take four dimensions. Windows go beside the images, so
    # that all share one bias, or beside the heads, so that all images share the masks.
    if mask is None:
        q, k, v = (each.flatten(0, 1) for each in (q, k, v))
        out = biased_attention(q, k, v, bias.unsqueeze(0), dropout)
        return out.unflatten(0, (-1, windows))
    q, k, v = (each.flatten(1, 2) for each in (q, k, v))
    out = biased_attention(q, k, v, bias.flatten(1, 2), dropout)
    return out.unflatten(1, (windows, -1))


def biased_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """PyTorch's fused attention with a bias or a mask, on a GPU never by cuDNN.

    PyTorch prefers cuDNN on Hopper if the bias does not learn. The gradients of its
    queries can be NaN with a mask (github.com/pytorch/pytorch/issues/196678). To switch
    it off concerns all threads of the process for that time.

    Args:
        q: (B, heads, N, c).
        k: (B, heads, N, c).
        v: (B, heads, N, c).
        bias: Floats added to the logits, or bools, False where a query must not see a
            key; (B, heads, N, N) or what broadcasts to it.
        dropout: Dropout probability of the weights. Defaults to 0.
        scale: Factor of the logits. Defaults to None: the inverse root of c.

    Returns:
        (B, heads, N, c).
    """
    if runs_on_cpu(q):
        return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)
    with sdpa_kernel(_enabled_but_cudnn()):
        return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)


@torch.compiler.assume_constant_result
def _enabled_but_cudnn() -> list[SDPBackend]:
    enabled = {
        SDPBackend.FLASH_ATTENTION: torch.backends.cuda.flash_sdp_enabled(),
        SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.mem_efficient_sdp_enabled(),
        SDPBackend.MATH: torch.backends.cuda.math_sdp_enabled(),
    }
    return [each for each, on in enabled.items() if on] or [SDPBackend.MATH]


def _cut(tokens: Tensor, windows: int, mask: Tensor | None) -> Tensor:
    """View a span of (B, N, heads, c) as (B, windows, heads, n, c)."""
    if mask is None:
        return tokens.unflatten(1, (windows, -1)).transpose(2, 3)
    return tokens.unflatten(1, (-1, windows)).permute(0, 2, 3, 1, 4)


def _join(out: Tensor, mask: Tensor | None) -> Tensor:
    """Undo :func:`_cut`, with the heads' channels side by side: (B, N, C)."""
    order = (0, 1, 3, 2, 4) if mask is None else (0, 3, 1, 2, 4)
    return out.permute(order).flatten(3).flatten(1, 2)


def _in_aligned_rows(bias: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Cast and mask a bias, on a GPU in rows that start at multiples of 8 numbers.

    PyTorch's memory-efficient kernel copies a bias that does not.
    """
    # The ONNX exporter knows no rows of other lengths.
    if torch.jit.is_tracing() or (runs_eagerly() and runs_on_cpu(bias)):
        bias = bias.to(dtype)
        return bias if mask is None else bias.masked_fill(mask, float('-inf'))
    shape = bias.shape
    if mask is not None:
        shape = torch.broadcast_shapes(shape, mask.shape)
    padded = bias.new_empty(*shape[:-1], -(-shape[-1] // 8) * 8, dtype=dtype)
    # Detached, it is no view to autograd, which would copy its gradient.
    rows = padded[..., : shape[-1]].detach().copy_(bias)
    return rows if mask is None else rows.masked_fill_(mask, float('-inf'))


class _TrainedAttention(torch.autograd.Function):
    """:func:`plain_attention` without masks, on a CPU, for training.

    Computes in float32 at least, so that float16 logits don't overflow.
    """

    @staticmethod
    def forward(
        ctx, qkv: Tensor, heads: int, spans: tuple[Span, ...], *biases: Tensor
    ) -> Tensor:
        ctx.heads, ctx.spans = heads, spans
        ctx.save_for_backward(qkv, *biases)
        result = qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3)
        with torch.autocast('cpu', enabled=False), onednn.gemms(qkv):
            for span, bias in zip(spans, biases, strict=True):
                operands = _windows(qkv, span, 3, heads)
                out = _windows(result, span, 1, heads)
                rows, (logits,) = _memory(operands, 4, 1)
                for part in _chunks(operands):
                    q, k, v = _gather(operands[part], rows[:3])
                    out_rows = rows[3:, : len(q)]
                    weights = _weights(q, k, bias[part[-1]], logits[: len(q)])
                    torch.bmm(weights, v, out=out_rows[0])
                    _scatter(out_rows, out[part])
        return result

    @staticmethod
    @first_gradients_only
    def backward(ctx, grad: Tensor) -> tuple:
        # Activation checkpointing allows reading them once.
        qkv, *biases = ctx.saved_tensors
        grad_qkv, grad_biases = torch.empty_like(qkv), []
        with torch.autocast('cpu', enabled=False), onednn.gemms(grad):
            for span, bias in zip(ctx.spans, biases, strict=True):
                operands, grad_out, grad_operands = (
                    _windows(each, span, parts, ctx.heads)
                    for each, parts in ((qkv, 3), (grad, 1), (grad_qkv, 3))
                )
                grad_bias = torch.zeros_like(bias, dtype=_wide(bias.dtype))
                rows, squares = _memory(operands, 7, 2)
                for part in _chunks(operands):
                    q, k, v = _gather(operands[part], rows[:3])
                    (grad_rows,) = _gather(grad_out[part], rows[3:4])
                    grads = rows[4:, : len(q)]
                    weights, grad_logits = squares[:, : len(q)]
                    _weights(q, k, bias[part[-1]], weights)
                    torch.bmm(weights.transpose(1, 2), grad_rows, out=grads[2])
                    torch.bmm(grad_rows, v.transpose(1, 2), out=grad_logits)
                    torch.ops.aten._softmax_backward_data.out(
                        grad_logits, weights, -1, q.dtype, grad_input=grad_logits
                    )
                    torch.bmm(grad_logits, k, out=grads[0])
                    torch.bmm(grad_logits.transpose(1, 2), q, out=grads[1])
                    grads[:2].mul_(q.shape[-1] ** -0.5)
                    _scatter(grads, grad_operands[part])
                    _add_windows(grad_bias[part[-1]], grad_logits)
                grad_biases.append(grad_bias.to(bias.dtype))
        return grad_qkv, None, None, *grad_biases


def _windows(tokens: Tensor, span: Span, parts: int, heads: int) -> Tensor:
    """View a span of (B, N, parts * C) as (parts, B, windows, heads, n, c)."""
    where, windows = span
    tokens = tokens[:, where].unflatten(2, (parts, heads, -1))
    length = tokens.shape[1] // windows
    return tokens.unflatten(1, (windows, length)).permute(3, 0, 1, 4, 2, 5)


def _chunk_shape(view: Tensor) -> tuple[int, ...]:
    """How many images, windows and heads have ``CHUNK`` bytes of logits and queries.

    Args:
        view: (parts, B, windows, heads, n, c).
    """
    length, width = view.shape[4:]
    number = CHUNK // (_wide(view.dtype).itemsize * length * (length + width))
    shape = []
    for size in view.shape[3:0:-1]:
        shape.insert(0, max(1, min(size, number)))
        number //= shape[0]
    return tuple(shape)


def _chunks(view: Tensor) -> Iterator[tuple[slice, ...]]:
    """Slices of (parts, B, windows, heads): one chunk after the other."""
    steps = _chunk_shape(view)
    ranges = (range(0, *each) for each in zip(view.shape[1:4], steps, strict=True))
    for starts in product(*ranges):
        ends = (start + step for start, step in zip(starts, steps, strict=True))
        yield slice(None), *map(slice, starts, ends)


def _memory(view: Tensor, rows: int, squares: int) -> tuple[Tensor, Tensor]:
    """Memory for a chunk, which stays in the cache.

    Returns:
        (rows, heads, n, c) and (squares, heads, n, n), with all heads of the chunk.
    """
    heads, (length, width) = math.prod(_chunk_shape(view)), view.shape[4:]
    empty = partial(view.new_empty, dtype=_wide(view.dtype))
    return empty(rows, heads, length, width), empty(squares, heads, length, length)


def _gather(view: Tensor, rows: Tensor) -> Tensor:
    """Copy (parts, B, windows, heads, n, c) to (parts, B * windows * heads, n, c)."""
    rows = rows[:, : view.shape[1:4].numel()]
    rows.view(view.shape).copy_(view)
    return rows


def _scatter(rows: Tensor, view: Tensor) -> None:
    """Copy back what :func:`_gather` made."""
    view.copy_(rows.view(view.shape))


def _weights(q: Tensor, k: Tensor, bias: Tensor, memory: Tensor) -> Tensor:
    """Attention weights of (windows * heads, n, c), computed in ``memory``."""
    torch.bmm(q, k.transpose(1, 2), out=memory)
    logits = memory.unflatten(0, (-1, len(bias)))
    torch.add(bias, logits, alpha=q.shape[-1] ** -0.5, out=logits)
    return torch.softmax(memory, -1, out=memory)


def _add_windows(total: Tensor, rows: Tensor) -> None:
    """Add (windows * heads, n, n) to (heads, n, n)."""
    windows = rows.unflatten(0, (-1, len(total)))
    total.add_(windows.sum(0) if len(windows) > 1 else windows[0])


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


# PyTorch's FLOP counter knows its fused attention on a GPU, but not on a CPU.
for _pass in ('', '_backward'):
    _name = '_scaled_dot_product_flash_attention'
    flop_registry.setdefault(
        getattr(torch.ops.aten, f'{_name}_for_cpu{_pass}'),
        flop_registry[getattr(torch.ops.aten, f'{_name}{_pass}')],
    )
