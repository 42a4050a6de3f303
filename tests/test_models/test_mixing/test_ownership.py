import itertools

import pytest
import torch

from mmmixmim.models import TokenOwnership


def random_mask(batch=1, grid=(3, 5)):
    return torch.rand(batch, *grid) < 0.5


def test_random_hides_the_wanted_number_of_cells():
    masks = [TokenOwnership.random((7, 7), 24).mask for _ in range(20)]
    assert all(mask.shape == (1, 7, 7) and mask.sum() == 24 for mask in masks)
    assert len({mask.numpy().tobytes() for mask in masks}) > 10
    shown = torch.cat(masks).float().mean(0)
    assert 0 < shown.min() and shown.max() < 1  # no cell is special


def test_at_repeats_each_cell():
    ownership = TokenOwnership(torch.tensor([[[1, 0], [0, 1]]]))
    expected = torch.tensor([[[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]])
    assert (ownership.at(2, 6) == expected).all()


def test_at_refuses_a_map_that_does_not_fit():
    with pytest.raises(ValueError, match=r'3x4 tokens.*2x2 cells'):
        TokenOwnership(torch.ones(1, 2, 2)).at(3, 4)


@pytest.mark.parametrize('batch, masks', [(4, 1), (4, 4), (3, 1), (1, 1)])
def test_mix_shows_the_partner_where_it_owns(batch, masks):
    mask = random_mask(masks)
    maps = torch.rand(batch, 6, 10, 2)
    mixed = TokenOwnership(mask).mix(maps)
    for i in range(batch):
        for y in range(6):
            for x in range(10):
                partner = mask[i % masks, y // 2, x // 2]
                source = maps[batch - 1 - i] if partner else maps[i]
                assert torch.equal(mixed[i, y, x], source[y, x])


def test_order_puts_own_tokens_first():
    ownership = TokenOwnership(random_mask())
    order, (own, partner) = ownership.order(6, 10)
    assert own + partner == 60
    flags = ownership.at(6, 10).flatten()[order]
    assert not flags[:own].any() and flags[own:].all()
    assert (order[:own].diff() > 0).all() and (order[own:].diff() > 0).all()


def test_order_counts_owners_without_tokens():
    assert TokenOwnership(torch.zeros(1, 2, 2)).order(4, 4)[1] == [16, 0]


def test_of_moves_the_cells_to_the_tokens():
    ownership = TokenOwnership.of(random_mask(), 2, (3, 5), 'meta')
    assert ownership.owners.is_meta


def test_unmix_leaves_each_pass_one_image():
    mask = random_mask()
    tokens, mask_token = torch.rand(2, 15, 4), torch.full((1, 1, 4), -1.0)
    own, partner = TokenOwnership(mask).unmix(tokens, mask_token).chunk(2)
    shows_partner = mask.flatten()
    assert (own[:, shows_partner] == -1).all() and (
        partner[:, ~shows_partner] == -1
    ).all()
    assert torch.equal(own[:, ~shows_partner], tokens[:, ~shows_partner])
    assert torch.equal(partner[:, shows_partner], tokens[:, shows_partner])


@pytest.mark.parametrize('batch', [1, 2, 3, 4])
def test_hidden_then_regroup_covers_every_cell_once(batch):
    ownership = TokenOwnership(random_mask())
    cells = torch.rand(batch, 15, 2)
    hidden = ownership.select_masked([cells, cells.flip(0)])
    nothing = torch.full_like(cells, float('nan'))
    assert torch.equal(ownership.regroup(hidden, nothing), cells)


def test_regroup_with_a_grid_for_each_image():
    mask = random_mask(2)
    ownership = TokenOwnership(mask)
    cells, visible = torch.rand(2, 15, 2), torch.full((2, 15, 2), -1.0)
    image = ownership.regroup(ownership.select_masked([cells, cells.flip(0)]), visible)[
        0
    ]
    # Seen in its own mixture, and seen in its partner's: nobody guesses it.
    seen_in_both = ~mask[0].flatten() & mask[1].flatten()
    assert (image[seen_in_both] == -1).all()
    assert torch.equal(image[~seen_in_both], cells[0][~seen_in_both])


@pytest.mark.parametrize(
    'mask, message',
    [
        (torch.ones(2, 2), r'shape \(1, h, w\) or \(B, h, w\), got shape \(2, 2\)'),
        ([[[1]]], r"got <class 'list'>"),
        (torch.tensor([[[0.0, 0.5]]]), 'got the value 0.5'),
        (torch.tensor([[[0, 2]]]), 'got the value 2'),
        (torch.tensor([[[0.0, float('nan')]]]), 'got the value nan'),
    ],
)
def test_refuses_what_is_no_mask(mask, message):
    with pytest.raises(ValueError, match=message):
        TokenOwnership(mask)


@pytest.mark.parametrize('shape', [(1, 2, 2), (3, 4, 4), (4, 2, 4)])
def test_check_refuses_a_mask_of_another_batch_or_grid(shape):
    with pytest.raises(ValueError, match=r'\(1 or 4, 4, 4\).*got \(\d, \d, \d\)'):
        TokenOwnership(torch.ones(shape)).check(4, (4, 4))


# Against slow loops ------------------------------------------------------------------

CASES = pytest.mark.parametrize(
    'images, masks, isolated',
    [
        (2, 1, True),
        (2, 6, True),
        (2, 6, False),
        (3, 1, True),
        (3, 6, True),
        (3, 1, False),
    ],
)


def drawn(images, masks, isolated):
    """An ownership of 2x3 cells with every owner in each mask, and maps 4x6."""
    owners = torch.stack([torch.randperm(6) % images for _ in range(masks)])
    ownership = TokenOwnership(owners.view(masks, 2, 3), images, isolated=isolated)
    return ownership, torch.randn(6, 4, 6, 5)


def owner_of(ownership, i, y, x):
    owners = ownership.owners
    return int(owners[i % len(owners), y // 2, x // 2])


def tokens(maps):
    batch, height, width, _ = maps.shape
    return itertools.product(range(batch), range(height), range(width))


@CASES
def test_mix_shows_what_the_owner_shows(images, masks, isolated):
    ownership, maps = drawn(images, masks, isolated)
    mixed = ownership.mix(maps)
    for i, y, x in tokens(maps):
        k = owner_of(ownership, i, y, x)
        source = (5 - i if k else i) if images == 2 else (i + k * 6 // images) % 6
        assert torch.equal(mixed[i, y, x], maps[source, y, x])


@CASES
def test_split_leaves_each_part_one_owner(images, masks, isolated):
    ownership, maps = drawn(images, masks, isolated)
    parts = ownership.split(maps)
    if not isolated:
        assert len(parts) == 1 and torch.equal(parts[0], maps)
        return
    assert len(parts) == images
    for (i, y, x), (k, part) in itertools.product(tokens(maps), enumerate(parts)):
        own = owner_of(ownership, i, y, x) == k
        expected = maps[i, y, x] if own else torch.zeros(5)
        assert torch.equal(part[i, y, x], expected)


@CASES
def test_merge_takes_each_token_from_its_owners_part(images, masks, isolated):
    ownership, maps = drawn(images, masks, isolated)
    parts = [torch.randn(6, 4, 6, 2) for _ in ownership.split(maps)]
    merged = ownership.merge(parts)
    for i, y, x in tokens(maps):
        k = owner_of(ownership, i, y, x) if isolated else 0
        assert torch.equal(merged[i, y, x], parts[k][i, y, x])


@CASES
@pytest.mark.parametrize('mean', [True, False], ids=['mean', 'sum'])
def test_pool_takes_the_tokens_of_one_owner(images, masks, isolated, mean):
    ownership, maps = drawn(images, masks, isolated)
    pooled = ownership.pool(maps, mean=mean).expand_as(maps)
    for i, y, x in tokens(maps):
        k = owner_of(ownership, i, y, x)
        own = [
            maps[i, v, u]
            for v, u in itertools.product(range(4), range(6))
            if not isolated or owner_of(ownership, i, v, u) == k
        ]
        expected = sum(own) / len(own) if mean else sum(own)
        torch.testing.assert_close(pooled[i, y, x], expected)


def test_pool_of_an_owner_without_tokens_changes_no_other():
    maps = torch.randn(2, 4, 4, 3)
    pooled = TokenOwnership(torch.zeros(1, 2, 2)).pool(maps)
    expected = maps.mean((1, 2), keepdim=True).expand_as(maps)
    torch.testing.assert_close(pooled, expected)


@CASES
def test_same_owner_compares_every_pair(images, masks, isolated):
    ownership, _ = drawn(images, masks, isolated)
    queries = ownership.at(4, 6).flatten(1)
    keys = ownership.owners.flatten(1)
    pairs = ownership.same_owner(queries), ownership.same_owner(queries, keys)
    for same, others in zip(pairs, (queries, keys), strict=True):
        assert same.shape == (masks, 24, others.shape[1])
        for i, n, m in itertools.product(*map(range, same.shape)):
            assert same[i, n, m] == (queries[i, n] == others[i, m] or not isolated)
