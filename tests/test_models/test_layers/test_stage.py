"""Which layout each block gets, and when blocks run again."""

import pytest
import torch

from mmmixmim.models.layers.windows import window_tokens


def watch_blocks(stage):
    """Layouts of the calls of a stage's blocks, in order."""
    layouts = []
    for block in stage.blocks:
        block.register_forward_pre_hook(lambda m, args: layouts.append(args[1]))
    return layouts


@pytest.mark.parametrize('shift', [False, True])
def test_every_second_block_shifts_its_windows(make_backbone, tiny_arch, shift):
    arch = tiny_arch | dict(depths=[3, 1, 2, 1])
    model = make_backbone(arch=arch, shift_windows=shift, window_size=[8, 8, 4, 2])
    layouts = watch_blocks(model.layers[0])
    model(torch.rand(1, 3, 64, 64))
    first = [
        torch.cat(
            [t.flatten() for t, _ in window_tokens((16, 16), (8, 8), each, 'cpu')]
        ).tolist()
        for each in (False, True)
    ]
    assert [layout.order.tolist() for layout in layouts] == [
        first[0],
        first[1] if shift else first[0],
        first[0],
    ]


def test_a_window_that_covers_the_map_is_not_shifted(make_backbone, tiny_arch):
    model = make_backbone(arch=tiny_arch, shift_windows=True)
    layouts = watch_blocks(model.layers[2])
    model(torch.rand(1, 3, 64, 64))
    assert len(layouts) == 2 and layouts[0] is layouts[1]
    assert layouts[0].order is None


@pytest.mark.parametrize('with_cp, runs', [(False, 1), (True, 2)])
def test_checkpointed_blocks_run_again_in_the_backward_pass(
    make_backbone, with_cp, runs
):
    model = make_backbone(with_cp=with_cp)
    layouts = watch_blocks(model.layers[0])
    model(torch.rand(1, 3, 64, 64))[0].sum().backward()
    assert len(layouts) == runs * len(model.layers[0].blocks)
