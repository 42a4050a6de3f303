import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models.utils import build_2d_sincos_position_embedding

from mmmixmim.geometry import (
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)


def test_codes_column_and_row():
    codes = sincos_position_embedding((2, 3), 8).view(2, 3, 8)
    y, x = 1, 2
    expected = [math.sin(x), math.sin(x / 100), math.cos(x), math.cos(x / 100)]
    expected += [math.sin(y), math.sin(y / 100), math.cos(y), math.cos(y / 100)]
    torch.testing.assert_close(codes[y, x], torch.tensor(expected))


def test_refuses_channels_that_four_does_not_divide():
    with pytest.raises(ValueError, match='divisible by 4, got 10'):
        sincos_position_embedding((2, 2), 10)


def test_resizing_to_the_same_size_changes_nothing():
    embedding = torch.rand(1, 12, 4)
    assert resize_position_embedding(embedding, (3, 4), (3, 4)) is embedding


def test_resizing_keeps_rows_and_columns_apart():
    rows = torch.arange(4.0).view(4, 1).expand(4, 4).reshape(1, 16, 1)
    resized = resize_position_embedding(rows, (4, 4), (8, 2)).view(8, 2)
    assert torch.equal(resized[:, 0], resized[:, 1])
    assert (resized[:, 0].diff() > 0).all()


def test_resizing_is_bicubic_and_keeps_the_type():
    embedding = torch.rand(1, 12, 4).bfloat16()
    resized = resize_position_embedding(embedding, (3, 4), (5, 6))
    maps = embedding.float().view(1, 3, 4, 4).permute(0, 3, 1, 2)
    wanted = F.interpolate(maps, size=(5, 6), mode='bicubic')
    wanted = wanted.permute(0, 2, 3, 1).reshape(1, 30, 4).bfloat16()
    assert torch.equal(resized, wanted)


def test_codes_are_computed_in_float64():
    codes = sincos_position_embedding((1, 2000), 16)[0, -1, :8].double()
    angles = 1999 * 10000.0 ** -(torch.arange(4, dtype=torch.float64) / 4)
    wanted = torch.cat([angles.sin(), angles.cos()])
    torch.testing.assert_close(codes, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    'source', [(16, 16), (8, 32), (4, 7), (56, 56), (12, 3), (1, 16), (16, 1), (1, 4)]
)
@pytest.mark.parametrize('target', [(16, 16), (8, 32), (28, 112)])
def test_loading_finds_the_map_that_an_embedding_was_made_for(source, target):
    embedding = sincos_position_embedding(source, 16)
    for made in (embedding, resize_position_embedding(embedding, source, (9, 13))):
        size = source if made is embedding else (9, 13)
        state = dict(pos=made)
        load_position_embedding(state, 'pos', target)
        expected = resize_position_embedding(made, size, target)
        assert torch.equal(state['pos'], expected)


@pytest.mark.parametrize('source', [(16, 16), (8, 32), (56, 56)])
@pytest.mark.parametrize('target', [(16, 16), (28, 112)])
def test_loading_finds_the_map_of_mmpretrains_embedding(source, target):
    """It codes the row first, where ours and the authors' code the column."""
    embedding = build_2d_sincos_position_embedding(source[::-1], 16)
    expected = resize_position_embedding(embedding, source, target)
    state = dict(pos=embedding)
    load_position_embedding(state, 'pos', target)
    assert torch.equal(state['pos'], expected)


def test_loading_leaves_an_embedding_of_another_kind_alone():
    state = dict(pos=torch.rand(1, 12, 4))
    before = state['pos']
    load_position_embedding(state, 'pos', (3, 4))
    assert state['pos'] is before
    before[0, 5] = before[0, 0]  # 5 is no width of 12 positions
    load_position_embedding(state, 'pos', (3, 4))
    assert state['pos'] is before


def test_loading_an_embedding_of_unknown_shape_is_refused():
    state = dict(pos=torch.rand(1, 12, 4))
    with pytest.raises(ValueError, match='pos has 12 positions.*2x2'):
        load_position_embedding(state, 'pos', (2, 2))
