"""Linear layers against nn.Linear, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim import ops
from mmmixmim.ops import linear_layer as module
from mmmixmim.ops.switch import is_watched


@pytest.fixture
def onednn(monkeypatch):
    """Shapes of the products that oneDNN computes."""
    shapes = []
    original = module.ONEDNN_LINEAR

    def product(x, weight, *args):
        shapes.append((*x.shape, len(weight)))
        return original(x, weight, *args)

    monkeypatch.setattr(module, 'ONEDNN_LINEAR', product)
    return shapes


@pytest.fixture(params=[False, True], ids=['other CPU', 'Intel'])
def intel(request, monkeypatch):
    monkeypatch.setattr(ops.onednn, 'INTEL_MKL', request.param)
    return request.param


def identity(x):
    return x


BEFORE = {
    'nothing': identity,
    'gelu': ops.gelu,
    'norm': ops.LayerNorm(4),
    'norm-no-bias': ops.LayerNorm(4, bias=False),
    'norm-no-affine': ops.LayerNorm(4, elementwise_affine=False),
}


def leaves_of(*modules):
    return [
        p for each in modules if isinstance(each, nn.Module) for p in each.parameters()
    ]


def stored(function, x):
    """Shapes that the backward pass of a function stores, but for parameters."""
    shapes = []

    def pack(tensor):
        if not isinstance(tensor, nn.Parameter) and tensor.data_ptr() != x.data_ptr():
            shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x)
    return shapes


def test_pytorch_switches_onednn_off(onednn):
    layer, x = ops.Linear(4, 5), torch.randn(2, 4, requires_grad=True)
    with torch.backends.mkldnn.flags(enabled=False):
        layer(x).sum().backward()
        with torch.no_grad():
            ops.linear_gelu(layer, x)
    assert not onednn


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('before', [name for name in BEFORE if name != 'nothing'])
def test_outputs_of_norms_and_activations_are_not_stored(before, autocast):
    layer, before = ops.Linear(4, 5), BEFORE[before]
    x = torch.randn(2, 3, 4, requires_grad=True)
    full = [(2, 3, 4), (6, 4)]

    def run(x):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            return layer(before(x))

    assert not any(shape in full for shape in stored(run, x))
    with ops.plain():
        assert any(shape in full for shape in stored(run, x))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('before', BEFORE)
@pytest.mark.parametrize('shape', [(2, 3, 4), (7, 4), (4,)])
def test_values_and_gradients(shape, before, bias, intel):
    layer, before = ops.Linear(4, 5, bias=bias), BEFORE[before]
    x = torch.randn(shape, requires_grad=True)
    leaves = [x, *leaves_of(layer, before)]
    out = layer(before(x))
    with ops.plain():
        wanted = layer(before(x))
        assert type(wanted.grad_fn).__name__ != '_LinearBackward'
    fast = type(out.grad_fn).__name__ == '_LinearBackward'
    assert fast == (len(shape) > 1)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), leaves),
        torch.autograd.grad(wanted.square().sum(), leaves),
    )


@pytest.mark.parametrize('inputs', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('before', BEFORE)
def test_values_and_gradients_under_autocast(before, inputs):
    layer, before = ops.Linear(64, 48), BEFORE[before]
    if isinstance(before, nn.LayerNorm):
        before = ops.LayerNorm(64)
    x = torch.randn(5, 64).to(inputs).requires_grad_()
    leaves = [x, *leaves_of(layer, before)]

    def run():
        with torch.autocast('cpu', torch.bfloat16):
            out = layer(before(x))
        return out, torch.autograd.grad(out.float().square().sum(), leaves)

    out, found = run()
    with ops.plain():
        plain, wanted = run()
    assert out.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(out, plain)
    for grad, expected in zip(found, wanted, strict=True):
        assert grad.dtype == expected.dtype
        error = (grad.float() - expected.float()).norm() / expected.float().norm()
        assert error < 0.01


def test_autocast_leaves_float64_alone():
    layers = nn.Sequential(ops.LayerNorm(8), ops.Linear(8, 4)).double()
    x = torch.randn(3, 8, dtype=torch.double, requires_grad=True)
    wanted = layers(x)
    with torch.autocast('cpu', torch.bfloat16):
        found = layers(x)
    assert torch.equal(found, wanted)
    gradients = [torch.autograd.grad(out.sum(), x)[0] for out in (found, wanted)]
    assert torch.equal(*gradients)


@pytest.mark.parametrize('before', BEFORE)
def test_without_gradients(before, onednn):
    layer, before = ops.Linear(4, 5), BEFORE[before]
    x = torch.randn(2, 3, 4)
    with torch.no_grad():
        out = layer(before(x))
        assert onednn == [(2, 3, 4, 5)]
        with ops.plain():
            torch.testing.assert_close(out, layer(before(x)))
    assert onednn == [(2, 3, 4, 5)]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('before', ['nothing', 'gelu', 'norm'])
@pytest.mark.parametrize(
    'frozen', ['x', 'layer', 'norm', 'weight', 'bias', 'x norm', 'x layer', 'x weight']
)
def test_gradients_when_only_a_part_is_trained(bias, before, frozen):
    """Also those of the bias where the input of a GELU needs none."""
    layer = ops.Linear(4, 5, bias=bias)
    before = ops.LayerNorm(4) if before == 'norm' else BEFORE[before]
    x = torch.randn(2, 3, 4, requires_grad='x' not in frozen)
    if isinstance(before, nn.Module):
        before.requires_grad_('norm' not in frozen)
    layer.requires_grad_('layer' not in frozen)
    layer.weight.requires_grad_('weight' not in frozen and 'layer' not in frozen)
    if bias:
        layer.bias.requires_grad_('bias' not in frozen and 'layer' not in frozen)
    leaves = [each for each in (x, *leaves_of(layer, before)) if each.requires_grad]
    if not leaves:
        return
    found = torch.autograd.grad(layer(before(x)).square().sum(), leaves)
    with ops.plain():
        wanted = torch.autograd.grad(layer(before(x)).square().sum(), leaves)
    torch.testing.assert_close(found, wanted)


def test_an_input_that_was_changed_in_place_is_stored():
    layer, x = ops.Linear(4, 5), torch.randn(2, 4)
    hidden = ops.gelu(x)
    hidden.mul_(2)
    (found,) = torch.autograd.grad(layer(hidden).square().sum(), layer.weight)
    hidden = 2 * F.gelu(x)
    (wanted,) = torch.autograd.grad(layer(hidden).square().sum(), layer.weight)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('low_precision', [False, True])
@pytest.mark.parametrize('bias', [True, False])
def test_norms_are_recomputed_with_the_parameters_of_the_forward_pass(
    bias, low_precision
):
    """Even if the module has others by then."""
    model = nn.Sequential(ops.LayerNorm(4), ops.Linear(4, 5, bias))
    x = torch.randn(2, 4)
    ops.set_low_precision(model, low_precision)
    others = {
        name: torch.randn_like(each).requires_grad_()
        for name, each in model.named_parameters()
    }

    def gradients():
        with torch.autocast('cpu', torch.bfloat16, enabled=low_precision):
            out = functional_call(model, others, x)
        return torch.autograd.grad(out.float().square().sum(), list(others.values()))

    found = gradients()
    with ops.plain():
        torch.testing.assert_close(found, gradients())


@pytest.mark.parametrize('trained', [True, False])
def test_parameters_of_norms_that_change_before_the_backward_pass(trained):
    norm, layer, x = ops.LayerNorm(4), ops.Linear(4, 5), torch.randn(2, 4)
    norm.requires_grad_(trained)
    (wanted,) = torch.autograd.grad(layer(norm(x)).square().sum(), layer.weight)
    loss = layer(norm(x)).square().sum()
    norm.weight.data = torch.rand(4)
    (found,) = torch.autograd.grad(loss, layer.weight)
    assert torch.equal(found, wanted)
    loss = layer(norm(x)).square().sum()
    nn.init.zeros_(norm.weight)  # as an optimizer's step, in place
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        loss.backward()


@pytest.mark.parametrize('before', ['nothing', 'gelu', 'norm'])
@pytest.mark.parametrize('shape', [(2, 3, 4), (7, 4)])
def test_outputs_may_be_changed_in_place(shape, before):
    """As adapters add to them."""
    layer, before, x = ops.Linear(4, 5), BEFORE[before], torch.randn(shape)

    def gradients():
        out = layer(before(x))
        out += 1
        return torch.autograd.grad(out.square().sum(), [layer.weight, layer.bias])

    found = gradients()
    with ops.plain():
        torch.testing.assert_close(found, gradients())


def doubled(product):
    """With the gradient of the product."""
    return product + product.detach()


class Doubled(torch.Tensor):
    """Weights with products and gradients of their own, as quantised ones."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        out = super().__torch_function__(function, types, args, kwargs)
        return doubled(out.as_subclass(torch.Tensor)) if function is F.linear else out


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize('before', ['nothing', 'gelu', 'norm'])
def test_subclasses_of_tensors_keep_their_products(before, grad):
    layer, before = ops.Linear(4, 5, bias=False), BEFORE[before]
    weight = layer.weight.detach()
    layer.weight = nn.Parameter(weight.as_subclass(Doubled), requires_grad=False)
    x = torch.randn(2, 3, 4, requires_grad=True)
    with torch.set_grad_enabled(grad):
        found = ops.linear_gelu(layer, before(x))
        wanted = F.gelu(doubled(F.linear(before(x), weight)))
        torch.testing.assert_close(found, wanted)
    if grad:
        (found,) = torch.autograd.grad(found.sum(), x)
        (wanted,) = torch.autograd.grad(wanted.sum(), x)
        torch.testing.assert_close(found, wanted)


class Adapted(ops.Linear):
    """As adapters make of a layer."""

    def forward(self, x):
        return super().forward(x) + 0.5 * x.sum(-1, keepdim=True)


def test_subclasses_keep_their_forward():
    layer, x = Adapted(4, 5), torch.randn(2, 4)
    expected = F.linear(x, layer.weight, layer.bias) + 0.5 * x.sum(-1, keepdim=True)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize('grad', [True, False])
def test_hooks_of_all_kinds_are_called(grad):
    """As Grad-CAM and feature extractors register them."""
    norm, layer, called = ops.LayerNorm(4), ops.Linear(4, 5), []
    layer.register_forward_pre_hook(lambda m, args: called.append('pre'))
    layer.register_forward_hook(lambda m, args, out: called.append(out.shape))
    layer.register_full_backward_pre_hook(lambda m, out: called.append('backward pre'))
    layer.register_full_backward_hook(lambda m, i, out: called.append(out[0].shape))
    x = torch.randn(2, 3, 4, requires_grad=True)
    with torch.set_grad_enabled(grad):
        out = layer(norm(x))
    wanted = ['pre', (2, 3, 5)]
    if grad:
        out.sum().backward()
        wanted += ['backward pre', (2, 3, 5)]
    assert called == wanted


def test_a_hook_that_changes_the_input_is_not_ignored():
    layer, x = ops.Linear(4, 5), torch.randn(2, 4)
    layer.register_forward_pre_hook(lambda m, args: (3 * args[0],))
    (found,) = torch.autograd.grad(layer(ops.gelu(x)).sum(), layer.weight)
    (wanted,) = torch.autograd.grad(
        F.linear(3 * F.gelu(x), layer.weight).sum(), layer.weight
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('tokens', [1, 30])
@pytest.mark.parametrize('outer', [1, 8])
def test_one_token_and_one_channel(intel, tokens, outer, onednn):
    """oneDNN's linear layer computes outputs everywhere, and gradients of inputs."""
    x = torch.randn(tokens, 4, requires_grad=True)
    layer = ops.Linear(4, outer)
    layer(ops.gelu(x)).sum().backward()
    assert onednn == [(tokens, 4, outer), *([(tokens, outer, 4)] * (not intel))]
    assert layer.weight.grad.is_contiguous()
    torch.testing.assert_close(
        layer.weight.grad, F.gelu(x.detach()).sum(0).expand(outer, 4)
    )


def test_no_rows(intel):
    x = torch.randn(0, 4, requires_grad=True)
    layer = ops.Linear(4, 2)
    layer(x).sum().backward()
    assert x.grad.shape == (0, 4)
    assert not layer.weight.grad.any() and not layer.bias.grad.any()


def test_what_onednn_does_not_compute(onednn):
    """Other dtypes, devices, autocast and traces."""
    x, layer = torch.randn(3, 4, requires_grad=True), ops.Linear(4, 5)
    ops.Linear(4, 5).double()(x.double())
    layer.to('meta')(x.to('meta'))
    with torch.autocast('cpu', torch.bfloat16):
        assert ops.Linear(4, 5)(x).dtype == torch.bfloat16
        with torch.no_grad():
            assert ops.Linear(4, 5)(x).dtype == torch.bfloat16
            assert ops.linear_gelu(ops.Linear(4, 5), x).dtype == torch.bfloat16
    frozen = ops.Linear(4, 5).requires_grad_(False)
    torch.jit.trace(frozen, x.detach(), check_trace=False)
    assert not onednn


def test_training_on_the_meta_device():
    """Where autocast does not exist, only shapes matter."""
    layer, norm = ops.Linear(4, 5).to('meta'), ops.LayerNorm(4).to('meta')
    out = layer(norm(torch.empty(2, 3, 4, device='meta', requires_grad=True)))
    out.sum().backward()
    assert out.shape == (2, 3, 5) and layer.weight.grad.shape == (5, 4)


def test_products_are_counted():
    """PyTorch's FLOP counter does not know oneDNN's operator."""
    x, layer = torch.randn(2, 3, 4), ops.Linear(4, 5)
    with FlopCounterMode(display=False) as counter:
        layer(ops.gelu(x)).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 6 * 4 * 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    assert counter.get_total_flops() == 2 * 6 * 4 * 5


def test_within_a_checkpoint_nothing_is_stored_and_gradients_agree():
    norm, layer, x = ops.LayerNorm(4), ops.Linear(4, 5), torch.randn(2, 3, 4)
    x.requires_grad_()
    leaves = [x, *norm.parameters(), *layer.parameters()]

    def run(x):
        return layer(ops.gelu(norm(x)))

    out = checkpoint(run, x, use_reentrant=False)
    found = torch.autograd.grad(out.square().sum(), leaves)
    wanted = torch.autograd.grad(run(x).square().sum(), leaves)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    shapes = stored(lambda x: checkpoint(run, x, use_reentrant=False), x)
    assert not any(4 in shape for shape in shapes)


@pytest.mark.parametrize('bias', [True, False])
def test_gelu_of_a_linear_layer(bias, monkeypatch):
    """One call of oneDNN without gradients; else the layer, then GELU."""
    activations, original = [], module.ONEDNN_LINEAR

    def product(x, weight, bias, activation, *args):
        activations.append(activation)
        return original(x, weight, bias, activation, *args)

    monkeypatch.setattr(module, 'ONEDNN_LINEAR', product)
    layer, x = ops.Linear(4, 5, bias=bias), torch.randn(2, 3, 4)
    wanted = F.gelu(F.linear(x, layer.weight, layer.bias))
    torch.testing.assert_close(ops.linear_gelu(layer, x), wanted)
    assert activations == ['none']
    activations.clear()
    with torch.no_grad():
        torch.testing.assert_close(ops.linear_gelu(layer, x), wanted)
        assert activations == ['gelu']
        activations.clear()
        with ops.plain():
            torch.testing.assert_close(ops.linear_gelu(layer, x), wanted)
        assert not activations
        outputs = []
        layer.register_forward_hook(lambda m, args, out: outputs.append(out))
        torch.testing.assert_close(ops.linear_gelu(layer, x), wanted)
        torch.testing.assert_close(F.gelu(outputs[0]), wanted)
        adapted = Adapted(4, 5, bias=bias)
        torch.testing.assert_close(
            ops.linear_gelu(adapted, x), F.gelu(adapted(x)), rtol=0, atol=0
        )
        replaced = ops.Linear(4, 5, bias=bias)
        replaced.forward = lambda x: 3 * F.linear(x, layer.weight)
        torch.testing.assert_close(
            ops.linear_gelu(replaced, x), F.gelu(replaced(x)), rtol=0, atol=0
        )
    assert 'gelu' not in activations


@pytest.mark.parametrize('watch', ['nothing', 'hook', 'retain_grad', 'second use'])
def test_gradients_around_gelu(watch):
    """Straight to its input, and by the output where someone watches or uses it."""
    layer, x = ops.Linear(4, 5), torch.randn(2, 3, 4, requires_grad=True)

    def run():
        seen = []
        hidden = ops.gelu(2 * x)
        if watch == 'hook':
            hidden.register_hook(lambda grad: seen.append(grad.clone()) or 3 * grad)
        if watch == 'retain_grad':
            hidden.retain_grad()
        out = layer(hidden).square().sum()
        if watch == 'second use':
            out = out + hidden.pow(3).sum()
        found = torch.autograd.grad(out, [x, *layer.parameters()], retain_graph=True)
        if watch == 'retain_grad':
            out.backward()
            seen.append(hidden.grad)
        return *found, *seen

    found = run()
    with ops.plain():
        wanted = run()
    assert len(found) == len(wanted) == (4 if watch in ('hook', 'retain_grad') else 3)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('strict', [True, False])
def test_exported_layers_are_plain_and_train(strict):
    layer, x = ops.Linear(4, 4), torch.rand(2, 3, 4)
    exported = torch.export.export(layer, (x,), strict=strict)
    targets = [node.target for node in exported.graph.nodes]
    assert torch.ops.aten.linear.default in targets
    copy = exported.module()  # it may have the parameters of the layer
    found, wanted = (
        torch.autograd.grad(each(x).square().sum(), [each.weight, each.bias])
        for each in (copy, layer)
    )
    torch.testing.assert_close(found, wanted)


def heads(layer, x, number, head_first=False):
    return ops.split_heads(ops.linear_qkv(layer, x, number, head_first), number)


@pytest.mark.parametrize('head_first', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_compiled_heads_agree_with_the_layer(dtype, head_first):
    layer, x = ops.Linear(8, 24), torch.rand(2, 5, 8, requires_grad=True)
    weights = torch.rand(3, 2, 5, 4, 2)

    def run(compute):
        low = torch.autocast('cpu', torch.bfloat16, enabled=dtype != torch.float32)
        with low:
            parts = compute(layer, x, 4, head_first)
        loss = sum(
            (part * each).sum() for part, each in zip(parts, weights, strict=True)
        )
        return parts, torch.autograd.grad(loss, (x, layer.weight, layer.bias))

    torch._dynamo.reset()
    compiled = torch.compile(heads, backend='aot_eager', fullgraph=True)
    (parts, found), (wanted_parts, wanted) = run(compiled), run(heads)
    assert {part.dtype for part in parts} == {dtype}
    # Then steps of heads are as long as 1 / 4 of a token's. PyTorch 2.6 gets no heads.
    side_by_side = head_first and torch.__version__ >= (2, 7)
    assert parts[0].stride()[1:3] == ((24, 6) if side_by_side else (24, 2))
    tolerance = (
        dict(rtol=1e-5, atol=1e-5)
        if dtype == torch.float32
        else dict(rtol=0.02, atol=0.02)
    )
    torch.testing.assert_close(parts, wanted_parts, **tolerance)
    torch.testing.assert_close(found, wanted, **tolerance)


@pytest.mark.parametrize('hook', [False, True])
def test_compiled_heads_leave_watched_layers_whole(hook):
    layer, x = ops.Linear(4, 12), torch.rand(2, 3, 4)
    if hook:
        layer.register_forward_hook(lambda layer, inputs, output: output + 1)
    else:  # as adapters do
        layer.forward = lambda x: ops.linear(x, layer.weight) + 1
    compiled = torch.compile(heads, backend='aot_eager', fullgraph=True)
    torch._dynamo.reset()
    torch.testing.assert_close(compiled(layer, x, 2), heads(layer, x, 2))


def test_backward_hooks_are_seen():
    layer = ops.Linear(4, 12)
    assert not is_watched(layer)
    layer.register_full_backward_hook(lambda layer, grad_in, grad_out: grad_in)
    assert is_watched(layer)


def test_compiled_layers_refuse_weights_of_another_type():
    layer, x = ops.Linear(4, 4).bfloat16(), torch.rand(2, 3, 4)
    torch._dynamo.reset()
    with pytest.raises(Exception, match='same dtype'):
        torch.compile(layer, backend='aot_eager')(x)


def test_compiled_layers_are_plain_on_request_and_without_gradients():
    layer, x, graphs = ops.Linear(4, 4), torch.rand(2, 3, 4), []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph

    def run():
        torch._dynamo.reset()
        torch.compile(lambda x: layer(x).sum(), backend=keep, fullgraph=True)(x)
        return 'autograd_function' in graphs[-1]

    # PyTorch 2.6 does not say whether it exports, so all layers are plain.
    assert run() == (torch.__version__ >= (2, 7))
    with ops.plain():
        assert not run()
    with torch.no_grad():
        assert not run()
