import pytest
import torch
from torch import nn

from mmmixmim.models.utils import mlp


@pytest.mark.parametrize('norm', [None, nn.LayerNorm(8)])
def test_parts_without_gradients_give_what_the_whole_does(monkeypatch, norm):
    model = mlp.MLP(8, 32).double()
    norm = norm and norm.double()
    x = torch.randn(3, 5, 7, 8, dtype=torch.float64)
    sizes = []
    model.fc1.register_forward_hook(lambda *args: sizes.append(len(args[2])))
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
