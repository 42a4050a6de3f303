"""Attention on the CPU against PyTorch's own, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from mmmixmim.models.utils import cpu_attention
from mmmixmim.models.utils.cpu_attention import segment_attention
from mmmixmim.models.utils.windows import Segment

HEADS = 3
# Windows of 4 tokens and of 5, where only queries, keys and values of them count.
SEGMENTS = [Segment(0, 6, 4, None), Segment(24, 2, 5, None)]


def pytorchs(qkv, biases):
    parts = []
    for segment, bias in zip(SEGMENTS, biases, strict=True):
        part = qkv[:, segment.tokens].unflatten(1, (segment.windows, -1))
        part = part.unflatten(-1, (3, HEADS, -1)).permute(3, 0, 1, 4, 2, 5)
        out = F.scaled_dot_product_attention(*part, bias.to(part.dtype))
        parts.append(out.transpose(2, 3).flatten(3).flatten(1, 2))
    return torch.cat(parts, 1)


def operands(dtype, scale=1.0):
    torch.manual_seed(0)
    qkv = (scale * torch.randn(2, 34, 3 * HEADS * 8)).to(dtype).requires_grad_()
    biases = [
        torch.randn(HEADS, each.length, each.length).to(dtype).requires_grad_()
        for each in SEGMENTS
    ]
    return qkv, biases


# All at once; few windows; one window; few heads of a window; one head.
@pytest.mark.parametrize('chunk', [2**20, 2500, 800, 300, 1])
def test_values_and_gradients(chunk, monkeypatch):
    monkeypatch.setattr(cpu_attention, 'CHUNK', chunk)
    qkv, biases = operands(torch.double)
    out = segment_attention(qkv, HEADS, SEGMENTS, biases)
    expected = pytorchs(qkv, biases)
    torch.testing.assert_close(out, expected)
    above = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (qkv, *biases), above),
        torch.autograd.grad(expected, (qkv, *biases), above),
    )


@pytest.mark.parametrize('chunk, rows', [(2**20, 12), (2500, 9), (800, 6), (1, 1)])
def test_parts_fit_the_cache(chunk, rows, monkeypatch):
    """Rows are heads of windows, with 4 x 4 logits of 8 bytes each."""
    monkeypatch.setattr(cpu_attention, 'CHUNK', chunk)
    tokens = torch.empty(4 * HEADS, 4, 8, dtype=torch.double)
    parts = list(cpu_attention._parts(tokens, HEADS))
    lengths = [len(tokens[part]) for part, _ in parts]
    assert sum(lengths) == len(tokens)
    if chunk == 2**20:
        assert lengths == [rows]
    else:
        assert max(lengths) * 128 <= max(chunk, 128)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_type_and_does_not_overflow(dtype):
    """Logits go far beyond what float16 holds."""
    qkv, biases = operands(dtype, scale=400.0)
    out = segment_attention(qkv, HEADS, SEGMENTS, biases)
    assert out.dtype == dtype
    full = segment_attention(
        qkv.float(), HEADS, SEGMENTS, [bias.float() for bias in biases]
    )
    logits = (qkv.float().chunk(3, -1)[0].square().sum(-1) * 8**-0.5).max()
    assert logits > torch.finfo(torch.float16).max
    torch.testing.assert_close(out.float(), full, rtol=2e-2, atol=2.0)
    grads = torch.autograd.grad(out.float().mean(), (qkv, *biases))
    assert all(grad.dtype == dtype and grad.isfinite().all() for grad in grads)


def test_under_autocast_and_checkpointing():
    from torch.utils.checkpoint import checkpoint

    qkv, biases = operands(torch.float32)
    plain = segment_attention(qkv, HEADS, SEGMENTS, biases)
    wanted = torch.autograd.grad(plain.square().sum(), (qkv, *biases))
    with torch.autocast('cpu', torch.bfloat16):
        out = checkpoint(
            segment_attention, qkv, HEADS, SEGMENTS, biases, use_reentrant=False
        )
    torch.testing.assert_close(out, plain)
    found = torch.autograd.grad(out.square().sum(), (qkv, *biases))
    torch.testing.assert_close(found, wanted)
