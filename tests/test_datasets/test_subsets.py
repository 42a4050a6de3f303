import numpy as np
import pytest

from mmmixmim.datasets.subsets import sample_per_class
from mmmixmim.validation import UserError

LABELS = np.repeat([0, 1, 2], 100)


def test_samples_are_sorted_balanced_and_without_repetition():
    shuffled = np.random.default_rng(0).permutation(LABELS)
    chosen = sample_per_class(shuffled, 50)
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(shuffled[chosen]).tolist() == [50] * 3


def test_every_class_has_its_own_draw():
    first, second, third = sample_per_class(LABELS, 10).reshape(3, 10)
    assert set(first) != set(second - 100) and set(second - 100) != set(third - 200)


def test_draw_of_a_class_does_not_depend_on_the_others():
    alone = sample_per_class(LABELS[100:200], 10, seed=4)
    assert np.array_equal(sample_per_class(LABELS, 10, seed=4)[10:20], alone + 100)


def test_a_whole_class_can_be_taken_and_no_more():
    assert np.array_equal(sample_per_class(LABELS, 100), np.arange(300))
    for count in (0, -1, 101):
        message = f'Cannot draw {count} images of class 0, which has 100'
        with pytest.raises(UserError, match=message):
            sample_per_class(LABELS, count)
