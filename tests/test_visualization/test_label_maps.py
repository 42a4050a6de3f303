import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from mmmixmim.visualization import draw_label_maps, paint_instances

COLOURS = [tuple(round(255 * x) for x in colormaps['tab10'](i)[:3]) for i in range(10)]


def test_most_confident_instance_wins():
    masks = np.zeros((3, 4, 5), bool)
    masks[0, :2], masks[1, 1:3], masks[2, :, 0] = True, True, True
    labels = paint_instances(np.array([7, 3, 0]), masks, (4, 5))
    assert labels.tolist() == [[7] * 5, [7] * 5, [3] * 5, [0, -1, -1, -1, -1]]


def test_no_instance_leaves_the_map_empty():
    labels = paint_instances(np.zeros(0, int), np.zeros((0, 2, 3), bool), (2, 3))
    assert labels.tolist() == [[-1] * 3] * 2


def share(picture, colour):
    return (np.abs(picture.astype(int) - colour).max(-1) <= 2).mean()


@pytest.fixture
def cells(tmp_path):
    """Cells of a figure of two images and two columns of label maps."""
    images = [np.full((9, 9, 3), value, np.uint8) for value in (50, 150)]
    columns = {
        'truth': [np.full((9, 9), 0), np.full((9, 9), 4)],
        'found': [np.full((9, 9), -1), np.full((9, 9), 9)],
    }
    path = tmp_path / 'new' / 'figure.png'
    draw_label_maps(images, columns, [f'class {i}' for i in range(10)], path)
    picture = np.asarray(Image.open(path).convert('RGB'))
    height, width = picture.shape[0] * 3.2 / 3.8, picture.shape[1]
    rows = [slice(round(height * i / 2), round(height * (i + 1) / 2)) for i in range(2)]
    sides = [slice(round(width * i / 3), round(width * (i + 1) / 3)) for i in range(3)]
    return [[picture[row, side] for side in sides] for row in rows]


def test_each_image_stands_before_its_maps(cells):
    colours = [
        [(50,) * 3, COLOURS[0], (255,) * 3],
        [(150,) * 3, COLOURS[4], COLOURS[9]],
    ]
    for row, wanted in zip(cells, colours, strict=True):
        for cell, colour in zip(row, wanted, strict=True):
            assert share(cell, colour) > 0.7


def test_columns_have_their_titles(cells):
    def dark(cell):
        return (cell[: len(cell) // 6] < 40).all(-1).sum()

    assert dark(cells[0][0]) == 0
    assert min(dark(cells[0][1]), dark(cells[0][2])) > 10
