import pytest
import torch
import torch.nn.functional as F

from mmmixmim.geometry import load_bias_table, relative_position_index

DEVICE = torch.device('cpu')


def test_relative_position_index_enumerates_all_positions():
    index = relative_position_index((2, 3), (2, 3), DEVICE)
    assert index.shape == (6, 6) and set(index.flatten().tolist()) == set(range(15))
    # From (1, 2) back to (0, 0) is the most positive offset, the last row.
    assert index[5, 0] == 14 and index[0, 5] == 0 and index[0, 0] == 7


def test_small_window_uses_the_middle_of_a_larger_table():
    small = relative_position_index((2, 2), (2, 2), DEVICE)
    large = relative_position_index((2, 2), (4, 3), DEVICE)
    table = torch.rand(7, 5)
    assert torch.equal(table.flatten()[large], table[2:5, 1:4].flatten()[small])


def test_bias_table_is_resized_to_a_window_that_is_not_square():
    state = dict(table=torch.rand(49, 2))
    load_bias_table(state, 'table', (4, 8), source=None)
    assert state['table'].shape == (7 * 15, 2)


def test_bias_table_is_an_image_that_is_resized_bicubically():
    table = torch.rand(49, 2, dtype=torch.bfloat16)
    state = dict(table=table)
    load_bias_table(state, 'table', (4, 8), source=None)
    image = table.float().view(1, 7, 7, 2).permute(0, 3, 1, 2)
    wanted = F.interpolate(image, size=(7, 15), mode='bicubic')
    wanted = wanted.permute(0, 2, 3, 1).reshape(105, 2).bfloat16()
    assert torch.equal(state['table'], wanted)


def test_bias_table_of_the_same_window_is_left_alone():
    table = torch.rand(7 * 15, 2)
    state = dict(table=table)
    for source in (None, (4, 8)):
        load_bias_table(state, 'table', (4, 8), source)
        assert state['table'] is table


def test_bias_table_with_the_rows_of_the_window_is_taken_for_its():
    table = torch.rand(9, 2)  # also those of a 2x2 window
    state = dict(table=table)
    load_bias_table(state, 'table', (1, 5), source=None)
    assert state['table'] is table


def test_bias_table_of_another_window_with_as_many_rows_is_resized():
    rows = torch.arange(7.0)[:, None].expand(7, 15).reshape(105, 1)
    state = dict(table=rows)
    load_bias_table(state, 'table', (8, 4), source=(4, 8))
    table = state['table'].view(15, 7)
    torch.testing.assert_close(table[:, 0], table[:, 6])
    assert (table[:, 0].diff() > 0).all()


def test_bias_table_of_unknown_shape_is_refused():
    with pytest.raises(ValueError, match='table has 105 rows.*4x4'):
        load_bias_table(dict(table=torch.rand(105, 2)), 'table', (4, 4), source=None)
