import pytest
import torch
from torch import nn

from mmmixmim.models.utils import mlp


class Watched(nn.Linear):
    """A linear layer that notes the first side of its inputs."""

    def __init__(self, *args):
        super().__init__(*args)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize('norm', [None, nn.LayerNorm(8)])
def test_parts_without_gradients_give_what_the_whole_does(monkeypatch, norm):
    model = mlp.MLP(8, 32)
    model.fc1 = Watched(8, 32)
    sizes = model.double().fc1.sizes
    norm = norm and norm.double()
    x = torch.randn(3, 5, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        whole = model(x, norm)
        monkeypatch.setattr(mlp, 'CHUNK', 32 * 8 * 10)  # ten rows
        parts = model(x, norm)
    assert sizes[0] == 3 and max(sizes[1:]) <= 10 and sum(sizes[1:]) == 3 * 5 * 7
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-12)
    # Parts would keep as much as the whole for the backward pass.
    sizes.clear()
    torch.testing.assert_close(model(x, norm), whole, rtol=1e-12, atol=1e-12)
    assert sizes == [3]
    # What watches a layer sees all tokens in one call.
    sizes.clear()
    seen = []
    model.fc2.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    with torch.no_grad():
        model(x, norm)
    assert sizes == [3] and seen == [(3, 5, 7, 32)]
