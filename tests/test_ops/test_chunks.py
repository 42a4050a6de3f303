import pytest
import torch

from mmmixmim import ops
from mmmixmim.models.layers import FFN
from mmmixmim.ops import chunks


class Watched(ops.Linear):
    """A linear layer that notes the first side of its inputs."""

    def __init__(self, *args):
        super().__init__(*args)
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        return super().forward(x)


@pytest.fixture
def ffn(monkeypatch):
    model = FFN(8, 32)
    model.fc1 = Watched(8, 32)
    monkeypatch.setattr(chunks, 'CHUNK', 32 * 8 * 10)  # ten tokens in float64
    return model.double()


TOKENS = torch.randn(3, 5, 7, 8, dtype=torch.float64)


def test_chunks_give_what_all_tokens_at_once_do(ffn):
    sizes = ffn.fc1.sizes
    with torch.no_grad():
        chunked = ffn(TOKENS)
        assert max(sizes) <= 10 and sum(sizes) == 3 * 5 * 7
        with ops.plain():
            whole = ffn(TOKENS)
    assert sizes[-1] == 3 and chunked.shape == whole.shape
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_training_uses_no_chunks(ffn):
    """They would store as much as all tokens at once."""
    ffn(TOKENS)
    assert ffn.fc1.sizes == [3]


@pytest.mark.parametrize('kind', ['forward_hook', 'forward_pre_hook'])
@pytest.mark.parametrize('layer', ['fc1', 'drop1', 'fc2', 'drop2'])
def test_hooks_see_all_tokens_in_one_call(ffn, layer, kind):
    seen = []
    register = getattr(getattr(ffn, layer), f'register_{kind}')
    register(lambda module, args, *out: seen.append(args[0].shape[:-1]))
    with torch.no_grad():
        ffn(TOKENS)
    assert seen == [(3, 5, 7)]


def test_another_forward_sees_all_tokens_in_one_call(ffn):
    seen, forward = [], ffn.fc2.forward
    ffn.fc2.forward = lambda x: seen.append(x.shape[:-1]) or forward(x)
    with torch.no_grad():
        ffn(TOKENS)
    assert seen == [(3, 5, 7)]


def test_few_tokens_are_one_chunk(ffn):
    with torch.no_grad():
        ffn(TOKENS[0, :2, :5])
        ffn(TOKENS[0, 0, :0])
    assert ffn.fc1.sizes == [2, 0]
