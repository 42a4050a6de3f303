"""Mixing three and four images."""

import pytest
import torch

from mmmixmim import ops
from mmmixmim.models import MixMIM, MixMIMTransformer, TokenOwnership

GRID = (3, 5)


def source(i, k, batch, images):
    """The image that mixture ``i`` shows at cells of owner ``k``."""
    return (i + k * batch // images) % batch


def draw(images, cells):
    return TokenOwnership(torch.randint(images, (cells, *GRID)), images)


@pytest.mark.parametrize('images', [2, 3, 4])
def test_partners_share_the_hidden_cells_equally(images):
    for hidden in (7, 8, 9):
        ownership = TokenOwnership.random(GRID, hidden, images=images)
        counts = ownership.owners.flatten().bincount(minlength=images).tolist()
        assert counts[0] == 15 - hidden and sum(counts) == 15
        assert counts[1] - counts[-1] <= 1  # the first ones get the remainder
        assert counts[1:] == sorted(counts[1:], reverse=True)
        assert ownership.order(*GRID)[1] == counts  # known without counting


def test_two_images_are_drawn_as_before():
    torch.manual_seed(3)
    rank = torch.rand(15).argsort().argsort()
    torch.manual_seed(3)
    assert torch.equal(TokenOwnership.random(GRID, 7).mask.flatten(), rank < 7)


@pytest.mark.parametrize('images, batch, cells', [(3, 6, 1), (3, 3, 3), (4, 8, 8)])
def test_mix_shows_every_owner(images, batch, cells):
    ownership = draw(images, cells)
    maps = torch.rand(batch, 6, 10, 2)
    mixed = ownership.mix(maps)
    for i in range(batch):
        for y in range(6):
            for x in range(10):
                owner = int(ownership.owners[i % cells, y // 2, x // 2])
                shown = maps[source(i, owner, batch, images), y, x]
                assert torch.equal(mixed[i, y, x], shown)


def test_two_images_share_with_the_flipped_batch():
    batch = torch.arange(5)
    ownership = TokenOwnership(torch.ones(1, *GRID))
    assert ownership.partner(batch, 1).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize('images, batch, cells', [(2, 3, 1), (3, 6, 6), (4, 4, 1)])
def test_each_pass_sees_one_owner_and_is_scored_elsewhere(images, batch, cells):
    ownership = draw(images, cells)
    tokens, mask_token = torch.rand(batch, 15, 2), torch.full((2,), -1.0)
    passes = ownership.unmix(tokens, mask_token).chunk(images)
    owners = ownership.owners.flatten(1).expand(batch, -1)
    for k, each in enumerate(passes):
        assert torch.equal(each[owners == k], tokens[owners == k])
        assert (each[owners != k] == -1).all()
    numbered = [torch.full((batch, 15, 1), k) for k in range(images)]
    selected = ownership.select_masked(numbered).squeeze(-1).unflatten(0, (-1, batch))
    for i in range(batch):
        for cell in range(15):
            others = [k for k in range(images) if k != owners[i, cell]]
            assert selected[:, i, cell].tolist() == others


@pytest.mark.parametrize('images, batch', [(2, 3), (2, 4), (3, 6), (4, 8)])
def test_shared_cells_score_each_cell_of_each_image_once_less_than_images(
    images, batch
):
    ownership = draw(images, 1)
    number = torch.arange(batch * 15).view(batch, 15, 1)
    targets = [ownership.partner(number, k) for k in range(images)]
    scored = ownership.select_masked(targets).flatten().bincount()
    assert (scored == images - 1).all() and len(scored) == batch * 15


@pytest.mark.parametrize('images, batch, cells', [(2, 3, 1), (3, 6, 1), (4, 8, 1)])
def test_regroup_returns_predictions_to_their_images(images, batch, cells):
    ownership = draw(images, cells)
    number = torch.arange(batch * 15).view(batch, 15, 1)
    targets = [ownership.partner(number, k) for k in range(images)]
    nothing = torch.full_like(number, -1)
    regrouped = ownership.regroup(ownership.select_masked(targets), nothing)
    assert torch.equal(regrouped, number)


def test_regroup_prefers_the_prediction_of_the_least_owner():
    ownership = draw(3, 1)
    passes = [torch.full((6, 15, 1), k) for k in range(3)]
    regrouped = ownership.regroup(ownership.select_masked(passes), passes[0])
    own_is_shown = ownership.owners.flatten(1) == 0
    assert torch.equal(regrouped.squeeze(-1), own_is_shown.long().expand(6, -1))


def test_regroup_with_cells_of_each_image():
    batch, images = 6, 3
    ownership = draw(images, batch)
    number = torch.arange(batch * 15).view(batch, 15, 1)
    targets = [ownership.partner(number, k) for k in range(images)]
    visible = torch.full_like(number, -1)
    regrouped = ownership.regroup(ownership.select_masked(targets), visible)
    owners = ownership.owners.flatten(1)
    for image in range(batch):
        for cell in range(15):
            hidden = any(
                owners[mixture, cell] != k
                for mixture in range(batch)
                for k in range(images)
                if source(mixture, k, batch, images) == image
            )
            assert regrouped[image, cell] == (number[image, cell] if hidden else -1)


@pytest.fixture
def encoder():
    arch = dict(embed_dims=16, depths=[2, 2, 1], num_heads=[1, 2, 4])
    return MixMIMTransformer(arch, 64, window_size=8, shift_windows=True).eval()


@pytest.mark.parametrize('images, batch', [(3, 6), (4, 4)])
@pytest.mark.parametrize('cells', ['shared', 'each'])
@torch.no_grad()
def test_owners_do_not_see_each_other(encoder, images, batch, cells):
    cells = batch if cells == 'each' else 1
    ownership = TokenOwnership(torch.randint(images, (cells, 4, 4)), images)
    inputs = torch.randn(batch, 3, 64, 64)
    (before,) = encoder(inputs, ownership)
    for changed in range(batch):
        other = inputs.clone()
        other[changed] += 1
        (after,) = encoder(other, ownership)
        for i in range(batch):
            differs = (before[i] != after[i]).any(0)
            owners = ownership.owners[i % cells]
            shown = torch.zeros(4, 4, dtype=torch.bool)
            for k in range(images):
                if source(i, k, batch, images) == changed:
                    shown |= owners == k
            assert torch.equal(differs, shown)
    with ops.plain():
        (plain,) = encoder(inputs, ownership)
    torch.testing.assert_close(before, plain, rtol=1e-4, atol=1e-5)


def test_a_batch_that_does_not_divide_is_refused():
    model = MixMIM(MixMIMTransformer(img_size=32, arch=ARCH), num_images=3)
    with pytest.raises(
        ValueError, match='batch of 4 cannot be mixed 3 by 3.*drop_last'
    ):
        model.loss(torch.rand(4, 3, 32, 32))


@pytest.mark.parametrize('value', [-1, 3, 0.5])
def test_an_owner_that_does_not_exist_is_refused(value):
    cells = torch.zeros(1, *GRID)
    cells[0, 1, 2] = value
    with pytest.raises(ValueError, match=f'from 0 to 2, got the value {value}'):
        TokenOwnership(cells, 3)


ARCH = dict(embed_dims=16, depths=[1, 1, 1], num_heads=[1, 2, 4])
