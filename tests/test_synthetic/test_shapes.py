import numpy as np
import pytest

from mmmixmim.synthetic import CLASSES, draw_scene
from mmmixmim.synthetic.shapes import LEAST_VISIBLE


def test_same_seed_gives_the_same_scene():
    first, second = (draw_scene(np.random.default_rng(3), 64, (2, 5)) for _ in range(2))
    assert np.array_equal(first.image, second.image)
    assert first.labels == second.labels and np.array_equal(first.masks, second.masks)
    other = draw_scene(np.random.default_rng(4), 64, (2, 5))
    assert not np.array_equal(first.image, other.image)


def test_masks_say_what_shows():
    """They don't overlap, and what is hidden too far is not there at all."""
    counts, labels, areas = set(), set(), []
    for seed in range(60):
        scene = draw_scene(np.random.default_rng(seed), 96, (2, 5))
        assert scene.image.shape == (96, 96, 3) and scene.image.dtype == np.uint8
        assert scene.masks.shape == (len(scene.labels), 96, 96)
        assert scene.masks.sum(0).max(initial=0) <= 1
        assert all(mask.sum() >= 30 * LEAST_VISIBLE for mask in scene.masks)
        counts.add(len(scene.labels))
        labels |= set(scene.labels)
        areas += [int(mask.sum()) for mask in scene.masks]
    assert max(counts) == 5 and labels == set(range(len(CLASSES)))
    assert max(areas) > 5 * min(areas)


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_shapes_differ_from_their_surroundings(label):
    """Some scene has the class, and its pixels are others than around it."""
    for seed in range(200):
        scene = draw_scene(np.random.default_rng(seed), 96, (1, 1))
        if scene.labels == [label]:
            mask = scene.masks[0]
            inside, outside = scene.image[mask], scene.image[~mask]
            assert np.abs(inside.mean(0) - outside.mean(0)).max() > 1
            return
    raise AssertionError(f'no scene with {CLASSES[label]}')
