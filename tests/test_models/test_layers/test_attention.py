"""Attention against a plain implementation with one mask over the whole map."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim import ops
from mmmixmim.models import TokenOwnership
from mmmixmim.models.layers import Attention, WindowAttention, WindowLayout


def plain_attention(attention, maps, window, ownership, shift=False):
    """Dense attention over a map; a mask does what windows and owners do."""
    batch, height, width, dim = maps.shape
    table = attention.relative_position_bias_table
    (wh, ww), (th, tw) = (map(min, window, (height, width)), window)
    y, x = (
        t.flatten()
        for t in torch.meshgrid(
            torch.arange(height), torch.arange(width), indexing='ij'
        )
    )
    up, left = 0, 0
    if shift:  # the first window of a side that holds several is cut in half
        up = wh - wh // 2 if height > wh else 0
        left = ww - ww // 2 if width > ww else 0
    windows = ((y + up) // wh) * 100 + (x + left) // ww
    allowed = (windows[:, None] == windows[None, :]).expand(batch, -1, -1)
    if ownership is not None:
        owner = ownership.at(height, width).flatten(1).expand(batch, -1)
        allowed = allowed & (owner[:, :, None] == owner[:, None, :])
    dy = (y[:, None] - y[None, :]).clamp(1 - th, th - 1) + th - 1
    dx = (x[:, None] - x[None, :]).clamp(1 - tw, tw - 1) + tw - 1
    bias = table[dy * (2 * tw - 1) + dx].permute(2, 0, 1)

    q, k, v = (
        t.view(batch, height * width, attention.num_heads, -1).transpose(1, 2)
        for t in attention.qkv(maps.flatten(1, 2)).chunk(3, dim=-1)
    )
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
    weights = logits.masked_fill(~allowed[:, None], float('-inf')).softmax(-1)
    out = (weights @ v).transpose(1, 2).reshape(batch, height, width, dim)
    return attention.proj(out)


@pytest.mark.parametrize('shift', [False, True], ids=['plain', 'shifted'])
@pytest.mark.parametrize('masks', [None, 1, 3], ids=['no-mask', 'shared', 'per-image'])
@pytest.mark.parametrize(
    'size, window',
    [
        ((8, 8), (8, 8)),  # covers the map
        ((4, 6), (8, 8)),  # larger than the map
        ((8, 8), (4, 4)),  # divides the map
        ((8, 12), (6, 8)),  # divides one side
        ((10, 6), (4, 4)),  # divides neither side
        ((4, 16), (8, 8)),  # larger than one side, divides the other
        ((6, 10), (8, 4)),  # larger than one side, does not divide the other
    ],
)
def test_windows_and_owners(size, window, masks, shift):
    attention = WindowAttention(8, 2, window).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    grid = (size[0] // 2, size[1] // 2)
    ownership = masks and TokenOwnership(torch.rand(masks, *grid) < 0.4)
    maps = torch.randn(3, *size, 8, dtype=torch.double)

    layout = WindowLayout(size, window, ownership, maps.device, shift)
    out = layout.restore(attention(layout.arrange(maps), layout))
    expected = plain_attention(attention, maps, window, ownership, shift)
    torch.testing.assert_close(out, expected)
    with torch.no_grad():  # by another kernel
        again = layout.restore(attention(layout.arrange(maps), layout))
    torch.testing.assert_close(again, expected)


@pytest.mark.parametrize('masks', [1, 2])
@pytest.mark.parametrize('window', [(8, 8), (4, 4)])
def test_owners_that_are_not_isolated_change_nothing(window, masks):
    attention = WindowAttention(8, 2, window)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    maps = torch.randn(2, 8, 8, 8)
    cells = torch.eye(4).expand(masks, -1, -1)
    outputs = []
    for ownership in (None, TokenOwnership(cells, isolated=False)):
        layout = WindowLayout((8, 8), window, ownership, maps.device)
        outputs.append(layout.restore(attention(layout.arrange(maps), layout)))
    torch.testing.assert_close(*outputs)


def test_masks_that_hide_nothing_or_everything():
    attention = WindowAttention(8, 2, (4, 4))
    maps = torch.randn(2, 4, 4, 8)
    plain = WindowLayout((4, 4), (4, 4), None, maps.device)
    expected = plain.restore(attention(plain.arrange(maps), plain))
    for fill in (torch.zeros, torch.ones):
        for masks in (1, 2):
            ownership = TokenOwnership(fill(masks, 2, 2))
            layout = WindowLayout((4, 4), (4, 4), ownership, maps.device)
            out = layout.restore(attention(layout.arrange(maps), layout))
            torch.testing.assert_close(out, expected)


def test_attention_dropout_is_off_in_evaluation():
    attention = Attention(8, 2, attn_drop=0.5)
    tokens = torch.randn(2, 6, 8)
    assert not torch.equal(attention(tokens), attention(tokens))
    attention.eval()
    assert torch.equal(attention(tokens), attention(tokens))


@pytest.mark.parametrize('masks', [None, 1, 2], ids=['no-mask', 'shared', 'per-image'])
def test_dropout_inside_windows_is_off_in_evaluation(masks):
    attention = WindowAttention(8, 2, (4, 4), attn_drop=0.5)
    ownership = masks and TokenOwnership(torch.rand(masks, 2, 2) < 0.5)
    layout = WindowLayout((4, 4), (4, 4), ownership, torch.device('cpu'))
    tokens = torch.randn(2, 16, 8)
    assert not torch.equal(attention(tokens, layout), attention(tokens, layout))
    attention.eval()
    assert torch.equal(attention(tokens, layout), attention(tokens, layout))


def test_outputs_are_dropped():
    layout = WindowLayout((4, 4), (4, 4), None, torch.device('cpu'))
    tokens = torch.randn(2, 16, 8)
    for attention, more in (
        (Attention(8, 2, proj_drop=0.5), ()),
        (WindowAttention(8, 2, (4, 4), proj_drop=0.5), (layout,)),
    ):
        dropped = (attention(tokens, *more) == 0).float().mean()
        assert 0.3 < dropped < 0.7
        assert (attention.eval()(tokens, *more) != 0).all()


def test_attention_stays_in_the_low_precision(monkeypatch):
    """What PyTorch's kernels get and return under autocast, the bias included."""
    kernel, types = torch.nn.functional.scaled_dot_product_attention, []

    def watched(*args, **kwargs):
        types.extend(each.dtype for each in args if isinstance(each, torch.Tensor))
        return kernel(*args, **kwargs)

    monkeypatch.setattr('torch.nn.functional.scaled_dot_product_attention', watched)
    attention = WindowAttention(8, 2, (4, 4))
    maps = torch.randn(2, 4, 4, 8)
    for masks in (None, 2):  # on a CPU the first has a kernel of its own to train
        ownership = masks and TokenOwnership(torch.rand(masks, 2, 2) < 0.4)
        layout = WindowLayout((4, 4), (4, 4), ownership, maps.device)
        full = attention(layout.arrange(maps), layout)
        types.clear()
        with torch.autocast('cpu', torch.bfloat16):
            out = attention(layout.arrange(maps), layout)
        assert out.dtype == torch.bfloat16
        assert types == [torch.bfloat16] * (4 if masks else 0)
        torch.testing.assert_close(out.float(), full, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('masks', [None, 1, 2], ids=['no-mask', 'shared', 'per-image'])
def test_without_gradients_the_fused_kernel_runs(dtype, masks):
    """It refuses what it cannot do, and logits beyond float16 do not overflow."""
    attention = WindowAttention(8, 2, (4, 4)).requires_grad_(False)
    maps = 2000 * torch.rand(2, 4, 4, 8)
    ownership = masks and TokenOwnership(torch.rand(masks, 2, 2) < 0.5)
    layout = WindowLayout((4, 4), (4, 4), ownership, maps.device)
    qkv = attention.qkv(layout.arrange(maps))
    q, k, _ = qkv.unflatten(-1, (3, 2, 4)).unbind(2)
    largest = torch.einsum('bnhc,bmhc->bhnm', q, k).max() / 2
    assert largest > torch.finfo(torch.float16).max

    def attend(qkv):
        biases = layout.biases(attention.relative_position_bias_table)
        return ops.window_attention(qkv, 2, layout.spans, biases, layout.masks)

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out = attend(qkv.to(dtype))
    assert out.dtype == dtype
    full = attend(qkv.to(dtype).float())
    torch.testing.assert_close(out.float(), full, rtol=1e-2, atol=1.0)


def test_operations_are_counted_with_and_without_gradients():
    attention = WindowAttention(8, 2, (4, 4))
    layout = WindowLayout((8, 8), (4, 4), None, torch.device('cpu'))
    tokens = torch.randn(3, 64, 8)
    linear = 3 * 64 * 8 * (24 + 8)
    within_windows = 3 * 64 * 16 * (8 + 8)
    for grad in (False, True):
        counter = FlopCounterMode(display=False)
        with torch.set_grad_enabled(grad), counter:
            attention(tokens, layout)
        assert counter.get_total_flops() == 2 * (linear + within_windows)


@pytest.mark.parametrize('window', [(4, 4), (6, 6)], ids=['windows', 'one-window'])
def test_without_gradients_any_batch(window):
    """A trace is not bound to its batch, and a batch may be empty."""
    attention = WindowAttention(8, 2, window).requires_grad_(False)
    layout = WindowLayout((6, 6), window, None, torch.device('cpu'))
    tokens = torch.randn(5, 36, 8)
    expected = attention(tokens, layout)
    assert attention(tokens[:0], layout).shape == (0, 36, 8)
    traced = torch.jit.trace(lambda x: attention(x, layout), tokens[:3])
    for batch in (1, 3, 5):
        torch.testing.assert_close(traced(tokens[:batch]), expected[:batch])


def test_operations_of_the_backward_pass_are_counted():
    """The fused kernel computes the logits again: five products instead of two."""
    attention = Attention(8, 2)
    tokens = torch.randn(3, 16, 8, requires_grad=True)
    linear = 3 * 16 * 8 * (24 + 8)
    attended = 3 * 16 * 16 * 8
    with FlopCounterMode(display=False) as counter:
        attention(tokens).sum().backward()
    assert counter.get_total_flops() == 2 * (3 * linear + (2 + 5) * attended)
