"""Attention that trains on a CPU against the plain one, values and gradients."""

from contextlib import nullcontext

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from mmmixmim import ops
from mmmixmim.ops import attention

HEADS = 3
# Six windows of 4 tokens, then two of 5.
SPANS = [(slice(0, 24), 6), (slice(24, 34), 2)]
LENGTHS = [4, 5]


def attend(qkv, biases):
    return ops.window_attention(qkv, HEADS, SPANS, biases, [None] * len(SPANS))


def plain(qkv, biases):
    with ops.plain():
        return attend(qkv, biases)


def operands(dtype, scale=1.0):
    torch.manual_seed(0)
    qkv = (scale * torch.randn(2, 34, 3 * HEADS * 8)).to(dtype).requires_grad_()
    biases = [torch.randn(HEADS, n, n).to(dtype).requires_grad_() for n in LENGTHS]
    return qkv, biases


def test_which_one_runs():
    qkv, biases = operands(torch.float32)
    assert 'Trained' in type(attend(qkv, biases).grad_fn).__name__
    assert 'Trained' not in type(plain(qkv, biases).grad_fn).__name__
    # The bias alone is reason enough; dropout and masks are for the plain one.
    assert 'Trained' in type(attend(qkv.detach(), biases).grad_fn).__name__
    biases_only = [bias.detach() for bias in biases]
    assert 'Trained' in type(attend(qkv, biases_only).grad_fn).__name__
    dropped = ops.window_attention(qkv, HEADS, SPANS, biases, [None, None], 0.5)
    assert 'Trained' not in type(dropped.grad_fn).__name__
    masks = [None, torch.zeros(1, 2, 1, 5, 5, dtype=torch.bool)]
    # With a mask the windows of a span stand token by token.
    order = torch.cat(
        [torch.arange(24), 24 + torch.arange(10).view(2, 5).t().flatten()]
    )
    masked = ops.window_attention(qkv[:, order], HEADS, SPANS, biases, masks)
    assert 'Trained' not in type(masked.grad_fn).__name__
    torch.testing.assert_close(masked, attend(qkv, biases)[:, order])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_full_attention_trains_in_float32_and_keeps_its_type(dtype, monkeypatch):
    seen, original = [], torch.nn.functional.scaled_dot_product_attention

    def watched(q, *args, **kwargs):
        seen.append(q.dtype)
        return original(q, *args, **kwargs)

    monkeypatch.setattr(attention.F, 'scaled_dot_product_attention', watched)
    qkv = torch.randn(3, 2, HEADS, 5, 8).to(dtype).requires_grad_()

    def run():
        with torch.autocast('cpu', torch.bfloat16, enabled=dtype != torch.float32):
            out = ops.full_attention(*qkv)
        return out, torch.autograd.grad(out.float().square().sum(), qkv)[0]

    out, grad = run()
    with ops.plain():
        expected, wanted = run()
    assert seen == [torch.float32, dtype] and out.dtype == grad.dtype == dtype
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(grad, wanted, rtol=2e-2, atol=2e-2)


# All at once; few windows; one window; few heads of a window; one head.
@pytest.mark.parametrize('chunk', [2**20, 2500, 1200, 800, 1])
@pytest.mark.parametrize('dtype', [torch.double, torch.float32])
def test_values_and_gradients(chunk, dtype, monkeypatch):
    monkeypatch.setattr(attention, 'CHUNK', chunk)
    qkv, biases = operands(dtype)
    out, expected = attend(qkv, biases), plain(qkv, biases)
    # The default ones would hide a step in float32.
    tolerances = dict(rtol=1e-10, atol=1e-10) if dtype == torch.double else {}
    torch.testing.assert_close(out, expected, **tolerances)
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (qkv, *biases), grad),
        torch.autograd.grad(expected, (qkv, *biases), grad),
        **tolerances,
    )


def test_what_is_stored():
    """Inputs and biases, but no attention weights."""
    qkv, biases = operands(torch.float32)
    shapes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: shapes.append(tuple(t.shape)) or t, lambda t: t
    ):
        attend(qkv, biases)
    assert shapes == [qkv.shape, *[bias.shape for bias in biases]]


@pytest.mark.parametrize(
    ('chunk', 'number'),
    # All; one image; two windows; one window; two heads; one head.
    [(2**20, 1), (1500, 2), (800, 4), (400, 6), (300, 12), (1, 18)],
)
@pytest.mark.parametrize('dtype', [torch.double, torch.bfloat16])
def test_chunks_fit_the_cache(chunk, number, dtype, monkeypatch):
    """Each head of a window has 4 x 4 logits and 4 x 8 numbers of queries."""
    size = 48 * (8 if dtype == torch.double else 4)
    monkeypatch.setattr(attention, 'CHUNK', chunk * size // 128)
    view = torch.zeros(3, 2, 3, HEADS, 4, 8, dtype=dtype)
    parts = list(attention._chunks(view))
    assert len(parts) == number
    rows, squares = attention._memory(view, 5, 2)
    for part in parts:
        view[part] += 1
        heads = view[part].shape[1:4].numel()
        assert heads * size <= max(attention.CHUNK, size)
        assert heads <= rows.shape[1] == squares.shape[1]
    assert (view == 1).all()
    assert rows.shape == (5, len(rows[0]), 4, 8)
    assert squares.shape == (2, len(rows[0]), 4, 4)


def test_no_images():
    qkv = torch.randn(0, 34, 3 * HEADS * 8, requires_grad=True)
    _, biases = operands(torch.float32)
    out = attend(qkv, biases)
    assert out.shape == (0, 34, HEADS * 8)
    out.sum().backward()
    assert qkv.grad.shape == qkv.shape and not biases[0].grad.any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_keeps_its_type_and_does_not_overflow(dtype):
    """Logits go far beyond what float16 holds."""
    qkv, biases = operands(dtype, scale=400.0)
    out = attend(qkv, biases)
    assert out.dtype == dtype
    full = attend(qkv.float(), [bias.float() for bias in biases])
    logits = (qkv.float().chunk(3, -1)[0].square().sum(-1) * 8**-0.5).max()
    assert logits > torch.finfo(torch.float16).max
    torch.testing.assert_close(out.float(), full, rtol=2e-2, atol=2.0)
    grads = torch.autograd.grad(out.float().mean(), (qkv, *biases))
    assert all(grad.dtype == dtype and grad.isfinite().all() for grad in grads)


def test_under_autocast_and_checkpointing():
    qkv, biases = operands(torch.float32)
    wanted_out = attend(qkv, biases)
    wanted = torch.autograd.grad(wanted_out.square().sum(), (qkv, *biases))
    with torch.autocast('cpu', torch.bfloat16):
        out = checkpoint(attend, qkv, biases, use_reentrant=False)
    torch.testing.assert_close(out, wanted_out)
    found = torch.autograd.grad(out.square().sum(), (qkv, *biases))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('masked', [False, True])
def test_dropout_reaches_the_weights(masked):
    qkv, biases = operands(torch.float32)
    mask = torch.zeros(1, 2, 1, 5, 5, dtype=torch.bool) if masked else None
    masks = [None, mask]
    kept, *dropped = (
        ops.window_attention(qkv, HEADS, SPANS, biases, masks, dropout)[:, 24:]
        for dropout in (0.0, 0.9, 0.9)
    )
    assert not torch.equal(dropped[0], dropped[1])
    assert not torch.equal(kept, dropped[0])


@pytest.mark.parametrize('context', [nullcontext, ops.plain, torch.no_grad])
def test_dropout_reaches_the_weights_of_all_tokens(context):
    q = torch.randn(2, HEADS, 5, 8)
    with context():
        kept, *dropped = (ops.full_attention(q, q, q, p) for p in (0.0, 0.9, 0.9))
    assert not torch.equal(dropped[0], dropped[1])
    assert not torch.equal(kept, dropped[0])


@pytest.mark.parametrize('length', [1, 8, 49, 98, 196])
@pytest.mark.parametrize('masked', [False, True])
def test_the_bias_needs_no_copy_on_a_gpu(length, masked):
    """Its rows start at multiples of 8 numbers; values and gradients are the same."""
    bias = torch.randn(2, length, length, requires_grad=True)
    mask = torch.rand(3, 4, 1, length, length) < 0.5 if masked else None
    with ops.as_on_gpu():
        rows = attention._in_aligned_rows(bias, mask, torch.bfloat16)
    *steps, last = rows.stride()
    assert last == 1 and not any(step % 8 for step in steps)
    expected = bias if mask is None else bias.masked_fill(mask, float('-inf'))
    assert torch.equal(rows, expected.bfloat16())
    grad = torch.randn_like(rows)
    for found, wanted in zip(
        torch.autograd.grad(rows, bias, grad),
        torch.autograd.grad(expected, bias, grad.float()),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize('kind', ['bias', 'mask', 'neither'])
def test_a_gpu_takes_biases_and_masks_without_cudnn(kind, monkeypatch):
    """Other kernels stay as the user has set them, and all are set back."""
    seen, original = [], torch.nn.functional.scaled_dot_product_attention
    names = ('cudnn', 'flash', 'mem_efficient', 'math')

    def enabled():
        cuda = torch.backends.cuda
        return [name for name in names if getattr(cuda, f'{name}_sdp_enabled')()]

    def watched(*args, **kwargs):
        seen.append(enabled())
        return original(*args, **kwargs)

    monkeypatch.setattr(attention.F, 'scaled_dot_product_attention', watched)
    q, bias = torch.randn(4, 3, HEADS, 4, 8), torch.randn(HEADS, 4, 4)
    mask = torch.zeros(1, 3, 1, 4, 4, dtype=torch.bool) if kind == 'mask' else None

    def attend():
        if kind == 'neither':
            return ops.full_attention(q[0], q[0], q[0])
        return attention.plain_attention(q, q, q, bias, mask, 0.0)

    before = enabled()
    expected = attend()
    with ops.as_on_gpu():
        torch.testing.assert_close(attend(), expected)
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH]):
            torch.testing.assert_close(attend(), expected)
        if kind != 'neither':  # a CPU has no cuDNN
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                torch.testing.assert_close(attend(), expected)
    without = [] if kind != 'neither' else ['cudnn']
    only = [] if kind == 'neither' else [['math']]
    assert seen == [before, [*without, *names[1:]], [*without, 'math'], *only]
    assert before == enabled() == list(names)


@pytest.mark.skipif(torch.__version__ < (2, 7), reason='PyTorch 2.6 gets no heads')
def test_compilers_get_masked_windows_without_copies():
    """Windows and heads become one dimension of attention by views alone."""
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    layer, x = ops.Linear(8, 24), torch.rand(4, 12, 8)
    bias, mask = torch.rand(2, 4, 4), torch.rand(4, 3, 1, 4, 4) < 0.3
    spans = [(slice(0, 12), 3)]

    def attend(x):
        qkv = ops.linear_qkv(layer, x, 2, head_first=True)
        return ops.window_attention(qkv, 2, spans, [bias], [mask])

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    with ops.as_on_gpu():
        out = torch.compile(attend, backend=backend, fullgraph=True)(x)
    torch.testing.assert_close(out, attend(x))
    aten = torch.ops.aten
    nodes = graphs[0].graph.nodes
    attention = aten._scaled_dot_product_flash_attention_for_cpu.default
    assert attention in [node.target for node in nodes]
    clones = [node.meta['val'] for node in nodes if node.target == aten.clone.default]
    # Weight and bias are reordered, and no activation.
    assert sorted(clone.numel() for clone in clones) == [24, 8 * 24]
