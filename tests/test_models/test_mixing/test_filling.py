import pytest
import torch

from mmmixmim.models import TokenOwnership
from mmmixmim.models.mixing import FILLINGS, build_filling


@pytest.fixture(params=[1, 4], ids=['shared', 'each'])
def hidden(request):
    hidden = torch.rand(request.param, 2, 3) < 0.5
    hidden[:, 0, 0], hidden[:, 1, 1] = True, False
    return hidden


def fill(name, hidden, maps):
    ownership = TokenOwnership(hidden, filling=build_filling(name, maps.shape[-1]))
    return ownership, ownership.mix(maps)


@pytest.mark.parametrize('name', FILLINGS)
def test_visible_tokens_stay_and_hidden_ones_go(name, hidden):
    maps = torch.rand(4, 4, 6, 8)
    ownership, filled = fill(name, hidden, maps)
    visible = ownership.at(4, 6).expand(4, -1, -1) == 0
    assert torch.equal(filled[visible], maps[visible])
    assert (filled[~visible] != maps[~visible]).any(-1).all()
    assert ownership.passes == 1
    assert fill(name, hidden, maps.bfloat16())[1].dtype == torch.bfloat16


def test_what_fills(hidden):
    maps = torch.rand(4, 4, 6, 8)
    seen = hidden.expand(4, -1, -1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    ownership, filled = fill('mask_token', hidden, maps)
    assert (filled[seen] == ownership.filling.token).all()
    assert (fill('zeros', hidden, maps)[1][seen] == 0).all()
    noise = fill('noise', hidden, torch.rand(4, 40, 60, 8))[1]
    seen = hidden.expand(4, -1, -1).repeat_interleave(20, 1).repeat_interleave(20, 2)
    assert abs(noise[seen].mean()) < 0.1 and abs(noise[seen].std() - 1) < 0.1


def test_each_image_gets_noise_of_its_own(hidden):
    maps = torch.rand(1, 4, 6, 8).expand(4, -1, -1, -1)
    _, filled = fill('noise', hidden[:1], maps)
    assert (filled[0] != filled[1]).any()


def test_shuffled_cells_are_visible_cells_of_the_same_image(hidden):
    maps = torch.rand(4, 4, 6, 8)
    _, filled = fill('shuffled_cells', hidden, maps)

    def cell(maps, y, x):
        return maps[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]

    for i in range(4):
        mask = hidden[i % len(hidden)]
        visible = [cell(maps[i], *place) for place in (~mask).nonzero().tolist()]
        for place in mask.nonzero().tolist():
            shown = cell(filled[i], *place)
            assert any(torch.equal(shown, each) for each in visible)


def test_shuffled_cells_are_drawn_anew():
    maps = torch.rand(1, 8, 8, 1)
    hidden = torch.eye(8).bool()[None]
    results = {fill('shuffled_cells', hidden, maps)[1].sum().item() for _ in range(5)}
    assert len(results) == 5


def test_the_mask_token_learns():
    filling = build_filling('mask_token', 8)
    ownership = TokenOwnership(torch.ones(1, 2, 2), filling=filling)
    ownership.mix(torch.rand(2, 2, 2, 8)).sum().backward()
    assert (filling.token.grad == 8).all()


def test_unknown_fillings_are_refused():
    with pytest.raises(ValueError, match="'grey'.*partner or one of mask_token, zeros"):
        build_filling('grey', 8)
    assert build_filling('partner', 8) is None
