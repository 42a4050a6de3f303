import numpy as np
import pytest
import torch
from PIL import Image

from mmmixmim.visualization import draw_reconstruction


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('normalise', [True, False])
def test_draws_originals_mixtures_and_guesses(
    make_mixmim, tmp_path, channels, normalise
):
    statistics = dict(mean=[100.0] * channels, std=[50.0] * channels)
    model = make_mixmim(
        backbone=dict(in_channels=channels),
        data_preprocessor=statistics if normalise and channels != 4 else None,
    )
    images = torch.randint(0, 256, (3, channels, 64, 96), dtype=torch.uint8)
    path = tmp_path / 'new' / 'picture.png'
    draw_reconstruction(
        model, images, path, mask=torch.tensor([[[1, 0, 0], [0, 1, 1]]])
    )
    picture = np.asarray(Image.open(path).convert('RGB'))
    assert picture.shape[1] > picture.shape[0] > 200
    assert picture.std() > 10 and not model.training


def test_shows_the_true_colours_of_the_original(make_mixmim, tmp_path):
    model = make_mixmim(
        data_preprocessor=dict(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
        )
    )
    blue_in_bgr = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    blue_in_bgr[:, 0] = 255
    draw_reconstruction(model, blue_in_bgr, tmp_path / 'blue.png')
    picture = np.asarray(Image.open(tmp_path / 'blue.png').convert('RGB'))
    originals = picture[: len(picture) // 3]
    assert (originals == (0, 0, 255)).all(-1).mean() > 0.5
