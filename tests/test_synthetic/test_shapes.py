import colorsys

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


def test_masks_are_the_visible_pixels():
    """They do not overlap, and no shape is almost hidden."""
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


@pytest.fixture(scope='module')
def whole():
    """Scenes of one shape that the border does not cut, by class."""
    found = {name: [] for name in CLASSES}
    for seed in range(400):
        scene = draw_scene(np.random.default_rng(seed), 96, (1, 1))
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            if mask[1:-1, 1:-1].sum() == mask.sum():
                found[CLASSES[label]].append(scene)
    assert min(map(len, found.values())) >= 20
    return found


@pytest.mark.parametrize(
    'name, area',
    [
        # Of regular polygons with n corners at 1: n / 2 * sin(2 pi / n).
        ('disc', np.pi),
        ('square', 2),
        ('triangle', 3 / 4 * 3**0.5),
        # Ten triangles between radii 1 and 0.42; a square of side 0.6 and four arms.
        ('star', 10 / 2 * 0.42 * np.sin(np.pi / 5)),
        ('cross', 4 * 0.6 * 0.7 + 0.36),
    ],
)
def test_areas_are_those_of_the_shapes(whole, name, area):
    """Over the square of the largest distance from the centre."""
    for scene in whole[name]:
        rows, columns = np.nonzero(scene.masks[0])
        distance = np.hypot(rows - rows.mean(), columns - columns.mean()).max() + 0.5
        reach = np.hypot(1, 0.3) if name == 'cross' else 1
        found = len(rows) / distance**2 * reach**2
        assert found == pytest.approx(area, rel=0.15)


def test_shapes_are_turned_and_placed_at_random(whole):
    centres = {
        tuple(np.argwhere(scene.masks[0]).mean(0).round()) for scene in whole['disc']
    }
    assert len(centres) > len(whole['disc']) / 2

    def fill(mask):
        """Share of the bounding box: 1 for an upright square, 0.5 for a diamond."""
        rows, columns = np.nonzero(mask)
        return len(rows) / np.ptp(rows) / np.ptp(columns)

    shares = [fill(scene.masks[0]) for scene in whole['square']]
    assert min(shares) < 0.65 and max(shares) > 0.85


def test_each_class_has_its_hue(whole):
    """The mean hues are a fifth of the colour circle apart."""
    for i, name in enumerate(CLASSES):
        hues = [
            colorsys.rgb_to_hsv(*scene.image[scene.masks[0]].mean(0) / 255)[0]
            for scene in whole[name]
        ]
        offsets = (np.array(hues) - i / 5 + 0.5) % 1 - 0.5
        assert abs(np.median(offsets)) < 0.05
        assert 0.02 < np.std(offsets) < 0.15


def test_tiny_shapes_are_left_out():
    scenes = [draw_scene(np.random.default_rng(i), 32, (1, 1)) for i in range(60)]
    areas = [scene.masks[0].sum() for scene in scenes if scene.labels]
    assert len(areas) < 60 and min(areas) >= 30


def test_even_blurred_backgrounds_are_noisy():
    """Without noise, neighbouring pixels of a blurred crop hardly differ."""
    for seed in range(20):
        image = draw_scene(np.random.default_rng(seed), 64, (0, 0)).image.astype(int)
        differences = np.abs(np.diff(image, axis=1))
        inside = (image[:, 1:] > 20) & (image[:, 1:] < 235)
        assert differences[inside].mean() > 3


@pytest.mark.parametrize('shapes', [(1, 1), (3, 3), (4, 7)])
def test_number_of_shapes(shapes):
    counts = [
        len(draw_scene(np.random.default_rng(seed), 96, shapes).labels)
        for seed in range(40)
    ]
    assert max(counts) == shapes[1] and np.mean(counts) > shapes[0] / 2


@pytest.mark.parametrize('name', CLASSES)
def test_shapes_differ_from_their_surroundings(whole, name):
    """Textures alone differ by less: about 20 of 255."""
    differences = []
    for scene in whole[name]:
        mask = scene.masks[0]
        inside, outside = scene.image[mask], scene.image[~mask]
        differences.append(np.abs(inside.mean(0) - outside.mean(0)).max())
    assert np.median(differences) > 60
