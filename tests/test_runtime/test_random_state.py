import random

import numpy as np
import pytest
import torch

from mmmixmim.runtime import kept_random_state


def draw():
    return random.random(), np.random.rand(), torch.rand(()).item()


@pytest.mark.parametrize('seed', [None, 5])
def test_state_is_as_it_was(seed):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = draw()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    with kept_random_state(seed):
        draw()
    assert draw() == expected


def test_state_is_restored_after_an_error():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(ValueError), kept_random_state():
        torch.rand(7)
        raise ValueError
    assert torch.equal(torch.rand(3), expected)


def test_seed_decides_what_is_drawn_inside():
    drawn = []
    for _ in range(2):
        torch.rand(3)
        with kept_random_state(seed=7):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
