import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim.models.utils import TransformerBlock
from mmmixmim.models.utils import linear_layers as module
from mmmixmim.models.utils.linear_layers import linear, linear_gelu


@pytest.fixture
def products(monkeypatch):
    """Shapes of the products that oneDNN gets."""
    shapes = []
    original = module._product

    def product(x, weight, *args):
        shapes.append((*x.shape, len(weight)))
        return original(x, weight, *args)

    monkeypatch.setattr(module, '_product', product)
    return shapes


def plain_layer():
    return nn.Linear(4, 5)


def hooked_layer():
    layer = nn.Linear(4, 5)
    layer.register_forward_hook(lambda *args: None)
    return layer


class Adapted(nn.Linear):
    """As adapters make of a layer."""

    def forward(self, x):
        return super().forward(x) + 0.5 * x.sum(-1, keepdim=True)


LAYERS = [plain_layer, hooked_layer, lambda: Adapted(4, 5)]


class Doubled(nn.LayerNorm):
    """A norm that oneDNN's way does not know."""

    def forward(self, x):
        return 2 * super().forward(x)


BEFORE = [None, F.gelu, nn.LayerNorm(4), nn.LayerNorm(4, bias=False), Doubled(4)]
BEFORE += [nn.LayerNorm(4, elementwise_affine=False), torch.tanh]


def kept(function, x):
    """Shapes that the backward pass of a function keeps, but for parameters."""
    shapes = []

    def pack(tensor):
        if not isinstance(tensor, nn.Parameter) and tensor.data_ptr() != x.data_ptr():
            shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(x)
    return shapes


@pytest.mark.parametrize('before', BEFORE[1:])
@pytest.mark.parametrize('make', LAYERS)
def test_input_is_not_kept(make, before):
    layer, x = make(), torch.randn(2, 3, 4, requires_grad=True)
    assert (2, 3, 4) not in kept(lambda x: linear(layer, x, before), x)
    # What keeping looks like; PyTorch's layer keeps the rows.
    assert (6, 4) in kept(lambda x: layer(before(x)), x)


@pytest.mark.parametrize('before', BEFORE)
@pytest.mark.parametrize('make', LAYERS)
def test_values_and_gradients(make, before):
    layer, x = make(), torch.randn(2, 3, 4, requires_grad=True)
    leaves = [x, *layer.parameters()]
    if isinstance(before, nn.Module):
        leaves += before.parameters()
    out = linear(layer, x, before)
    wanted = layer(before(x) if before else x)
    torch.testing.assert_close(out, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), leaves),
        torch.autograd.grad(wanted.square().sum(), leaves),
    )


@pytest.mark.parametrize('make', LAYERS)
@pytest.mark.parametrize('before', BEFORE)
def test_without_gradients(make, before):
    layer, x = make(), torch.randn(2, 3, 4)
    wanted = layer(before(x) if before else x)
    with torch.no_grad():
        torch.testing.assert_close(linear(layer, x, before), wanted.detach())
        torch.testing.assert_close(linear_gelu(layer, x, before), F.gelu(wanted))
    torch.testing.assert_close(linear_gelu(layer, x, before), F.gelu(wanted))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('frozen', ['x', 'layer', 'norm', 'weight', 'x layer'])
def test_gradients_of_what_is_trained_alone(bias, frozen):
    norm, layer = nn.LayerNorm(4), nn.Linear(4, 5, bias=bias)
    x = torch.randn(2, 3, 4, requires_grad='x' not in frozen)
    norm.requires_grad_('norm' not in frozen)
    layer.requires_grad_('layer' not in frozen)
    layer.weight.requires_grad_(frozen != 'weight' and 'layer' not in frozen)
    leaves = [x, *norm.parameters(), *layer.parameters()]
    leaves = [each for each in leaves if each.requires_grad]
    found = torch.autograd.grad(linear(layer, x, norm).square().sum(), leaves)
    wanted = torch.autograd.grad(layer(norm(x)).square().sum(), leaves)
    torch.testing.assert_close(found, wanted)
    out = linear(layer, x)
    if not out.requires_grad:
        return
    leaves = [each for each in (x, *layer.parameters()) if each.requires_grad]
    found = torch.autograd.grad(out.square().sum(), leaves)
    wanted = torch.autograd.grad(layer(x).square().sum(), leaves)
    torch.testing.assert_close(found, wanted)


def test_what_onednn_gets(products):
    """Single precision on a CPU, and layers that are what they seem."""
    x = torch.randn(3, 4, requires_grad=True)
    layer = plain_layer()
    linear(layer, x, F.gelu).sum().backward()
    assert products == [(3, 4, 5), (3, 5, 4)]
    products.clear()
    for other in (hooked_layer(), Adapted(4, 5)):
        linear(other, x)
    linear(plain_layer().double(), x.double())
    linear(layer.to('meta'), x.to('meta'))
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(plain_layer(), x).dtype == torch.bfloat16
    frozen = plain_layer().requires_grad_(False)
    torch.jit.trace(lambda x: linear(frozen, x), x.detach(), check_trace=False)
    assert not products


def test_products_are_counted():
    """PyTorch's counter of operations does not know oneDNN's."""
    x = torch.randn(2, 3, 4)
    with FlopCounterMode(display=False) as counter:
        linear(plain_layer(), x, F.gelu).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 6 * 4 * 5)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        linear_gelu(plain_layer(), x)
    assert counter.get_total_flops() == 2 * 6 * 4 * 5


@pytest.mark.parametrize('drop', [0.0, 0.3])
def test_block_with_and_without(drop, monkeypatch):
    """Same values and gradients, also with dropout and within a checkpoint."""
    block = TransformerBlock(16, 2, drop=drop)
    x = torch.randn(2, 6, 16)

    def gradients(run):
        torch.manual_seed(0)
        block.zero_grad()
        out = run(x)
        out.square().sum().backward()
        return [out.detach(), *(p.grad.clone() for p in block.parameters())]

    found = gradients(block)
    nested = gradients(lambda x: checkpoint(block, x, use_reentrant=False))
    for name in ('attention', 'mlp'):
        monkeypatch.setattr(
            f'mmmixmim.models.utils.{name}.linear',
            lambda layer, x, before=None: layer(before(x) if before else x),
        )
    torch.testing.assert_close(found, gradients(block))
    torch.testing.assert_close(nested, gradients(block))
