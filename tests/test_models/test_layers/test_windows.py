import pytest
import torch

from mmmixmim import ops
from mmmixmim.models import TokenOwnership
from mmmixmim.models.layers import WindowLayout
from mmmixmim.models.layers.windows import window_tokens

DEVICE = torch.device('cpu')


@pytest.mark.parametrize('masks', [None, 1, 2])
@pytest.mark.parametrize('size', [(4, 4), (8, 12), (6, 10), (2, 20)])
@pytest.mark.parametrize('window', [(4, 4), (12, 12), (3, 5)])
def test_restore_undoes_arrange(size, window, masks):
    ownership = masks and TokenOwnership(
        torch.rand(masks, size[0] // 2, size[1] // 2) < 0.5
    )
    layout = WindowLayout(size, window, ownership, DEVICE)
    maps = torch.rand(2, *size, 3)
    assert torch.equal(layout.restore(layout.arrange(maps)), maps)


def test_windows_hold_neighbours():
    layout = WindowLayout((4, 6), (2, 3), None, DEVICE)
    maps = torch.arange(24.0).view(1, 4, 6, 1)
    assert layout.arrange(maps)[0, 6:12, 0].tolist() == [3, 4, 5, 9, 10, 11]
    (segment,) = layout.segments
    assert (segment.windows, segment.length, segment.blocked) == (4, 6, None)


def test_windows_that_stick_out_have_fewer_tokens():
    layout = WindowLayout((3, 3), (2, 2), None, DEVICE)
    assert [(s.windows, s.length) for s in layout.segments] == [
        (1, 4),
        (1, 2),
        (1, 2),
        (1, 1),
    ]
    maps = torch.arange(9.0).view(1, 3, 3, 1)
    assert layout.arrange(maps).flatten().tolist() == [0, 1, 3, 4, 2, 5, 6, 7, 8]


def test_owners_stand_side_by_side():
    ownership = TokenOwnership(torch.tensor([[[1, 0], [0, 0]]]))
    covering = WindowLayout((4, 4), (8, 8), ownership, DEVICE)
    assert [(s.windows, s.length) for s in covering.segments] == [(1, 12), (1, 4)]
    several = WindowLayout((4, 4), (4, 2), ownership, DEVICE)
    assert [s.length for s in several.segments] == [4, 4, 8]
    assert not any(s.blocked is not None for s in several.segments)
    maps = ownership.at(4, 4)[..., None].float()
    assert several.arrange(maps).flatten().tolist() == [0] * 4 + [1] * 4 + [0] * 8


def test_owners_that_differ_by_image_are_masked():
    ownership = TokenOwnership(torch.tensor([[[1, 0], [0, 0]], [[0, 0], [1, 1]]]))
    (segment,) = WindowLayout((4, 4), (4, 2), ownership, DEVICE).segments
    assert segment.blocked.shape == (2, 2, 1, 8, 8)
    assert segment.blocked[0, 0, 0, 0].tolist() == [False] * 4 + [True] * 4
    assert not segment.blocked[0, 1].any()


@pytest.mark.parametrize('length, first', [(2, 1), (4, 2), (7, 3), (1, 1)])
def test_shifted_windows_start_with_half_a_window(length, first):
    """Rounded down, as Swin's shift."""
    groups = window_tokens((1, 3 * length), (1, length), True, DEVICE)
    widths = sorted(width for _, (_, width) in groups)
    assert min(tokens[0].numel() for tokens, _ in groups) <= first
    starts = sorted(int(window[0]) for tokens, _ in groups for window in tokens)
    assert starts[:3] == [0, first, first + length]
    assert set(widths) <= {first, length, length - first}


def test_windows_are_not_shifted_where_one_covers_the_side():
    plain, shifted = (
        window_tokens((4, 8), (4, 4), shift, DEVICE) for shift in (False, True)
    )
    assert [sides for _, sides in plain] == [(4, 4)]
    assert [sides for _, sides in shifted] == [(4, 2), (4, 4)]


def test_without_kernels_owners_are_masked():
    """The plain path is one mask per window."""
    ownership = TokenOwnership(torch.tensor([[[1, 0], [0, 0]]]))
    for window in ((8, 8), (4, 2)):
        with ops.plain():
            layout = WindowLayout((4, 4), window, ownership, DEVICE)
        (segment,) = layout.segments
        assert (
            segment.blocked.shape[1] == segment.windows == (1 if window[0] == 8 else 2)
        )
        assert segment.blocked.any()
