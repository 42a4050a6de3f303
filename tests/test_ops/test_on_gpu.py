"""Kernels of a GPU against the plain equations on the CPU in float64.

The same tests run on the CPU, too, so that they are known to work without a GPU.
"""

import pytest
import torch
import torch.nn.functional as F

from mmmixmim import ops
from tests.devices import DEVICES

# Error relative to the largest number.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 4e-2}
HEADS, CHANNELS = 2, 16


def assert_near(found, wanted, dtype):
    found = found.detach().cpu().double()
    assert found.shape == wanted.shape and found.isfinite().all()
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error <= TOLERANCES[dtype]


def rounded(*shape, dtype):
    """Random numbers of a type, and the same in float64."""
    low = torch.randn(shape).to(dtype)
    return low, low.double().requires_grad_()


def others(length):
    """Pairs of tokens of three windows that must not see each other."""
    owners = torch.randint(2, (4, 3, 1, length))
    return owners.unsqueeze(-1) != owners.unsqueeze(-2)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('length', [49, 64])
def test_windows(device, dtype, masked, length):
    """In training, and without gradients, where other kernels may run."""
    torch.manual_seed(0)
    spans, masks = [(slice(0, 3 * length), 3)], [others(length) if masked else None]
    qkv, wanted_qkv = rounded(4, 3 * length, 3 * HEADS * CHANNELS, dtype=dtype)
    bias, wanted_bias = rounded(HEADS, length, length, dtype=dtype)
    grad, wanted_grad = rounded(4, 3 * length, HEADS * CHANNELS, dtype=dtype)
    with ops.plain():
        wanted = ops.window_attention(wanted_qkv, HEADS, spans, [wanted_bias], masks)
    wanted_grads = torch.autograd.grad(wanted, (wanted_qkv, wanted_bias), wanted_grad)

    qkv, bias, grad = (each.to(device) for each in (qkv, bias, grad))
    masks = [each if each is None else each.to(device) for each in masks]
    with torch.no_grad():
        out = ops.window_attention(qkv, HEADS, spans, [bias], masks)
    assert_near(out, wanted, dtype)
    trained = qkv.requires_grad_(), bias.requires_grad_()
    out = ops.window_attention(qkv, HEADS, spans, [bias], masks)
    assert out.dtype == dtype
    assert_near(out, wanted, dtype)
    for found, expected in zip(
        torch.autograd.grad(out, trained, grad), wanted_grads, strict=True
    ):
        assert_near(found, expected, dtype)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('masked', [False, True])
def test_all_tokens(device, dtype, masked):
    """Without a mask, and with one of bools, as of HiViT."""
    torch.manual_seed(0)
    qkv, wanted_qkv = rounded(3, 4, HEADS, 49, CHANNELS, dtype=dtype)
    grad, wanted_grad = rounded(4, HEADS, 49, CHANNELS, dtype=dtype)
    same = ~others(49)[:, 0] if masked else None

    def attend(qkv, same):
        if same is None:
            return ops.full_attention(*qkv)
        return ops.biased_attention(*qkv, same)

    with ops.plain():
        wanted = attend(wanted_qkv, same)
    (wanted_grad,) = torch.autograd.grad(wanted, wanted_qkv, wanted_grad)
    qkv, grad = qkv.to(device).requires_grad_(), grad.to(device)
    out = attend(qkv, same if same is None else same.to(device))
    assert_near(out, wanted, dtype)
    assert_near(torch.autograd.grad(out, qkv, grad)[0], wanted_grad, dtype)


@pytest.mark.parametrize('device', DEVICES)
def test_extreme_logits_with_a_mask_have_gradients(device):
    """All logits are about -120, where cuDNN's gradient of the queries was NaN."""
    q, k, v = (0.1 * torch.randn(1, 1, 64, 64, device=device) for _ in range(3))
    q[..., 0], k[..., 0] = 1.0, -120.0 * 8
    qkv = [each.bfloat16().requires_grad_() for each in (q, k, v)]
    mask = torch.ones(64, 64, dtype=torch.bool, device=device).tril()
    out = ops.biased_attention(*qkv, mask)
    grads = torch.autograd.grad(out, qkv, torch.ones_like(out))
    assert all(each.isfinite().all() for each in (out, *grads))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_compiled_linear_layers(device, dtype):
    """Gradients of weights are float32; a GPU's GEMMs write them so themselves."""
    torch.manual_seed(0)
    x, wanted_x = rounded(4, 64, 24, dtype=dtype)
    weight, wanted_weight = rounded(16, 24, dtype=dtype)
    bias, wanted_bias = rounded(16, dtype=dtype)
    grad, wanted_grad = rounded(4, 64, 16, dtype=dtype)
    wanted = F.linear(wanted_x, wanted_weight, wanted_bias)
    operands = wanted_x, wanted_weight, wanted_bias
    wanted_grads = torch.autograd.grad(wanted, operands, wanted_grad)

    layer = ops.Linear(24, 16).to(device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    x = x.to(device).requires_grad_()
    torch.compiler.reset()
    with torch.autocast(device, dtype):
        out = torch.compile(layer, backend='aot_eager', fullgraph=True)(x)
    assert_near(out, wanted, dtype)
    found = torch.autograd.grad(out, (x, layer.weight, layer.bias), grad.to(device))
    assert found[1].dtype == torch.float32
    for each, expected in zip(found, wanted_grads, strict=True):
        assert_near(each, expected, dtype)
