import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmmixmim.models.utils import TransformerBlock
from mmmixmim.models.utils.recompute import recomputed_input


class Watched(nn.LayerNorm):
    """Counts its calls and tells whether its last output lives."""

    calls = 0

    def forward(self, x):
        out = super().forward(x)
        self.calls += 1
        self.last = weakref.ref(out)
        return out


def test_input_is_not_kept():
    norm, linear = Watched(4), nn.Linear(4, 5)
    x = torch.randn(3, 4, requires_grad=True)
    out = recomputed_input(linear, norm, x)
    assert norm.calls == 1 and norm.last() is None
    plain = linear(norm(x))
    assert norm.last() is not None  # what keeping looks like
    assert torch.equal(out, plain)
    leaves = (x, *norm.parameters(), *linear.parameters())
    found = torch.autograd.grad(out.square().sum(), leaves)
    assert norm.calls == 3
    wanted = torch.autograd.grad(plain.square().sum(), leaves)
    torch.testing.assert_close(found, wanted)


def test_nothing_is_different_without_gradients():
    norm, linear = Watched(4), nn.Linear(4, 5)
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(recomputed_input(linear, norm, x), linear(norm(x)))


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
    for module in ('attention', 'mlp'):
        monkeypatch.setattr(
            f'mmmixmim.models.utils.{module}.recomputed_input',
            lambda linear, function, x: linear(function(x)),
        )
    torch.testing.assert_close(found, gradients(block))
    torch.testing.assert_close(nested, gradients(block))
