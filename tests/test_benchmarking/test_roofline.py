"""What the roofline counts, and what it makes of it."""

import pytest
import torch
import torch.nn.functional as F

from mmmixmim.benchmarking import CARDS, Card, KernelCounter, find_card, gpu_operators
from mmmixmim.validation import UserError


def count(function, *args):
    with KernelCounter() as counter:
        function(*args)
    return counter


def test_bytes_and_flops_of_kernels():
    x, weight = torch.rand(4, 6), torch.rand(5, 6)
    row = count(F.linear, x, weight).rows()['mm']
    assert (row.number, row.flops) == (1, 2 * 4 * 6 * 5)
    assert row.size == 4 * (4 * 6 + 5 * 6 + 4 * 5)
    # Views are free, what is expanded is read once, what is changed also written.
    assert not count(lambda: x.t()[1:].unsqueeze(0)).calls
    row = count(lambda: x + x[:1].expand(4, 6)).rows()['add']
    assert row.size == 4 * (2 * 24 + 6)
    assert count(lambda: x.mul_(2)).rows()['mul_'].size == 4 * 2 * 24


def test_a_kernel_takes_the_longest_of_three_times():
    card = Card('test', low=1e12, full=1e11, bandwidth=1e9, memory=1e9, link=1e9)
    big, small = torch.rand(2000, 2000), torch.rand(2)
    launch = count(lambda: small + small).seconds(card)
    moved = count(lambda: big + 1).seconds(card)
    assert moved == pytest.approx(2 * 4 * 4e6 / 0.76e9)
    assert launch == pytest.approx(2.5e-6)
    fast = Card('test', 1e12, 1e11, 1e15, 1e9, 1e9)
    computed = count(torch.mm, big, big)
    assert computed.seconds(fast) == pytest.approx(2 * 2000**3 / 0.56e11)
    assert computed.seconds(fast, scale=0.5) == pytest.approx(2000**3 / 0.56e11)
    low = count(torch.mm, big.bfloat16(), big.bfloat16())
    assert low.seconds(fast) == pytest.approx(computed.seconds(fast) / 10)


def test_a_gpu_normalises_in_float32_and_has_its_own_attention():
    x, weight = torch.rand(2, 4, 6, 8, requires_grad=True), torch.ones(8)
    bias = torch.rand(1, 4, 6, 6)

    def run():
        with torch.autocast('cpu', torch.bfloat16):
            low = x @ torch.rand(8, 8)
            assert F.layer_norm(low, (8,), weight).dtype == torch.float32
            q = torch.empty(2, 4, 6, 8, device='meta')
            out = F.scaled_dot_product_attention(q, q, q, bias.to('meta'))
            assert out.dtype == torch.bfloat16

    before = F.layer_norm, F.scaled_dot_product_attention
    with gpu_operators():
        rows = count(run).rows()
    assert rows['_scaled_dot_product_efficient_attention'].flops == 4 * 8 * 36 * 8
    assert (F.layer_norm, F.scaled_dot_product_attention) == before


def test_gemms_need_not_be_computed():
    x = torch.rand(3, 3)
    with KernelCounter(compute=False) as counter:
        y = x @ x
        assert (y + 1 == 1).all() and y.shape == (3, 3)
    assert counter.total().flops == 2 * 27


def test_cards_by_name_and_by_numbers():
    assert find_card('H100') is CARDS['h100']
    card = find_card('312,2.0,80')
    assert (card.low, card.bandwidth) == (312e12, 2e12) and card.link == 32e9
    assert find_card('312,2.0,80,300').link == 300e9


@pytest.mark.parametrize(
    'name', ['h1000', '312,2', '312,-2,80', '312,x,80', '', 'nan,1,1']
)
def test_unknown_cards_are_refused(name):
    with pytest.raises(UserError, match='Unknown GPU.*h100.*312,2.0,80'):
        find_card(name)
