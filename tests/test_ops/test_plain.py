"""The switch, and whole models with and without kernels."""

import os
import subprocess
import sys

import pytest
import torch

from mmmixmim import ops
from mmmixmim.models import MixMIMTransformer
from mmmixmim.ops import attention, chunks, linear_layer, permutation
from mmmixmim.validation import UserError


@pytest.fixture
def calls(monkeypatch):
    """Names of the kernels that run."""
    seen = set()

    def watch(owner, name, label):
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            seen.add(label)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    watch(linear_layer._Linear, 'apply', 'linear')
    watch(attention._TrainedAttention, 'apply', 'attention')
    watch(permutation._Permute, 'apply', 'permute')
    if linear_layer.ONEDNN_LINEAR is not None:
        watch(linear_layer, 'ONEDNN_LINEAR', 'onednn')
    return seen


ALL = {'linear', 'attention', 'permute', 'onednn'}


def gradients(model, images, mask, autocast=False):
    model.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        loss = model.loss(images, mask=mask)['loss']
    loss.backward()
    return loss.detach(), {
        name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad
    }


MASKS = dict(
    shared=lambda: torch.rand(1, 3, 2) < 0.5,
    per_image=lambda: torch.rand(3, 3, 2) < 0.5,
)


@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'checkpointed'])
@pytest.mark.parametrize('mask', MASKS)
def test_losses_and_gradients_are_those_of_plain_pytorch(
    make_mixmim, calls, mask, with_cp
):
    model = make_mixmim(backbone=dict(with_cp=with_cp)).double().float()
    images, mask = torch.randn(3, 3, 96, 64), MASKS[mask]()
    loss, found = gradients(model, images, mask)
    # Masks that differ between images block keys, which the trained kernel cannot.
    assert calls == (ALL if len(mask) == 1 else ALL - {'attention'})
    calls.clear()
    with ops.plain():
        plain_loss, wanted = gradients(model, images, mask)
    assert not calls
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize('mask', MASKS)
def test_what_a_gpu_runs_is_plain_pytorch_too(make_mixmim, mask):
    model = make_mixmim()
    images, mask = torch.randn(3, 3, 96, 64), MASKS[mask]()
    with ops.as_on_gpu():
        loss, found = gradients(model, images, mask)
    with ops.plain():
        plain_loss, wanted = gradients(model, images, mask)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-6, atol=0)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_losses_and_gradients_under_autocast(make_mixmim, calls):
    model = make_mixmim()
    images, mask = torch.randn(3, 3, 96, 64), MASKS['shared']()
    loss, found = gradients(model, images, mask, autocast=True)
    assert calls == ALL - {'onednn'}
    with ops.plain():
        plain_loss, wanted = gradients(model, images, mask, autocast=True)
    torch.testing.assert_close(loss, plain_loss, rtol=1e-3, atol=0)
    for name, value in wanted.items():
        error = (found[name] - value).norm() / value.norm().clamp_min(1e-6)
        assert error < 0.05, (name, error)


@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
def test_inference_is_that_of_plain_pytorch(calls, monkeypatch, size):
    monkeypatch.setattr(chunks, 'CHUNK', 4096)
    model = MixMIMTransformer(
        dict(embed_dims=16, depths=[1, 1, 2], num_heads=[1, 2, 4]),
        img_size=64,
        window_size=4,
        shift_windows=True,
    ).eval()
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        (found,) = model(images)
        assert calls == {'onednn', 'permute'}
        calls.clear()
        with ops.plain():
            (wanted,) = model(images)
    assert not calls
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_switch_goes_back_after_an_error():
    with pytest.raises(RuntimeError), ops.plain():
        assert ops.is_plain() and not ops.runs_eagerly()
        with ops.plain():
            pass
        assert ops.is_plain()
        raise RuntimeError
    assert not ops.is_plain() and ops.runs_eagerly()


@pytest.mark.parametrize('value, plain', [('1', True), ('0', False), ('', False)])
def test_the_environment_variable(value, plain):
    code = 'from mmmixmim.ops import switch; print(switch.is_plain())'
    environment = os.environ | {'MMMIXMIM_PLAIN': value}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == str(plain), result.stderr


def test_second_gradients_need_the_plain_path():
    """Here kernels would leave them out: the loss is linear in the layer's outputs."""
    x = torch.rand(2, 3, 4, requires_grad=True)
    layer = ops.Linear(4, 4)
    bias = torch.rand(2, 3, 3, requires_grad=True)

    def penalty(loss):
        (grad,) = torch.autograd.grad(loss(), x, create_graph=True)
        return grad.square().sum()

    def attend():
        qkv = x.tile(1, 1, 3)
        return ops.window_attention(qkv, 2, [(slice(0, 3), 1)], [bias], [None]).sum()

    for loss in (lambda: layer(x).sum(), attend):
        with pytest.raises(UserError, match='no second gradients.*ops.plain'):
            penalty(loss)
        with ops.plain():
            penalty(loss).backward()
    assert layer.weight.grad.abs().sum() > 0 < bias.grad.abs().sum()


def test_transforms_of_functions_work_on_the_plain_path(tiny_arch):
    """Gradients of each image."""
    model = MixMIMTransformer(tiny_arch, img_size=64).eval()
    weights = {k: v for k, v in model.named_parameters() if v.requires_grad}
    images = torch.rand(2, 3, 64, 64)

    def loss(weights, image):
        return torch.func.functional_call(model, weights, (image[None],))[0].sum()

    with ops.plain():
        each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, images)
        both = torch.func.grad(lambda w: sum(loss(w, i) for i in images))(weights)
    for name, gradients in each.items():
        torch.testing.assert_close(
            gradients.sum(0), both[name], rtol=1e-3, atol=1e-3, msg=name
        )
