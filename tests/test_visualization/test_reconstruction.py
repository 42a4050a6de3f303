import numpy as np
import pytest
import torch
from PIL import Image

from mmmixmim.visualization import draw_reconstruction, paint_reconstruction


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize('normalise', [True, False])
def test_draws_three_rows(make_mixmim, tmp_path, channels, normalise):
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


def rows_of(path):
    picture = np.asarray(Image.open(path).convert('RGB'))
    return np.split(picture[: len(picture) // 3 * 3], 3)


def test_mixture_follows_the_mask_and_the_partner(make_mixmim, tmp_path):
    """A red and a blue image exchange the cells where the mask is 1."""
    statistics = dict(mean=[10.0] * 3, std=[50.0] * 3)
    model = make_mixmim(data_preprocessor=statistics).train()
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[0, 0] = images[1, 2] = 255
    mask = torch.tensor([[[1, 0], [0, 0]]])
    draw_reconstruction(model, images, tmp_path / 'mix.png', mask=mask)
    original, mixed, reconstructed = rows_of(tmp_path / 'mix.png')

    middle = (original == (0, 0, 255)).all(-1).any(0).argmax()

    def counts(row):
        colours = (255, 0, 0), (0, 0, 255)
        halves = row[:, :middle], row[:, middle:]
        return [(half == c).all(-1).sum() for half in halves for c in colours]

    red_left, blue_left, red_right, blue_right = counts(original)
    assert min(red_left, blue_right) > 0 and max(blue_left, red_right) == 0
    cell = red_left / 4
    assert counts(mixed) == pytest.approx([3 * cell, cell, cell, 3 * cell], rel=0.1)
    # An untrained model predicts neither.
    assert max(counts(reconstructed)) < cell


def test_drawing_is_done_in_evaluation_mode(make_mixmim, tmp_path):
    """Stochastic depth would change the picture."""
    model = make_mixmim(backbone=dict(drop_path_rate=0.9)).train()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    for name in ('a.png', 'b.png'):
        draw_reconstruction(
            model.train(), images, tmp_path / name, mask=torch.eye(2)[None]
        )
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_chosen_bands_are_red_green_and_blue(make_mixmim, tmp_path):
    model = make_mixmim(backbone=dict(in_channels=5))
    images = torch.zeros(2, 5, 64, 64, dtype=torch.uint8)
    images[:, 4] = 255
    draw_reconstruction(model, images, tmp_path / 'red.png', bands=[4, 0, 1])
    original = rows_of(tmp_path / 'red.png')[0]
    assert (original == (255, 0, 0)).all(-1).mean() > 0.5


def test_pixels_without_data_spoil_no_picture(make_mixmim, tmp_path):
    """NaN in one band, of values far from 8 bits."""
    model = make_mixmim(
        backbone=dict(in_channels=5),
        data_preprocessor=dict(
            type='RasterDataPreprocessor', mean=[4e3] * 5, std=[1e3] * 5
        ),
    )
    images = 4e3 + 1e3 * torch.randn(2, 5, 64, 64)
    images[0, 2, :20] = torch.nan
    draw_reconstruction(model, images, tmp_path / 'a.png')
    original, _, reconstructed = rows_of(tmp_path / 'a.png')
    assert original.std() > 40 and reconstructed.std() > 10


def test_shows_the_true_colours_of_the_original(make_mixmim, tmp_path):
    model = make_mixmim(
        data_preprocessor=dict(
            mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
        )
    )
    blue_in_bgr = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    blue_in_bgr[:, 0] = 255
    draw_reconstruction(model, blue_in_bgr, tmp_path / 'blue.png')
    originals = rows_of(tmp_path / 'blue.png')[0]
    assert (originals == (0, 0, 255)).all(-1).mean() > 0.5


def test_details_show_what_is_visible_pasted_and_wrong(make_mixmim):
    model = make_mixmim(data_preprocessor=dict(mean=[10.0] * 3, std=[50.0] * 3))
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    images[0, 0] = images[1, 2] = 255
    mask = torch.tensor([[[1, 0], [0, 0]]])
    picture = paint_reconstruction(model, images, mask, details=True)
    original, visible, mixed, predicted, pasted, error = np.split(picture, 6)

    def cells(row, colour):
        return round((row == colour).all(-1).sum() / (64 * 64), 2)

    red, blue, grey = (255, 0, 0), (0, 0, 255), (127, 127, 127)
    assert [cells(original, c) for c in (red, blue, grey)] == [4, 4, 0]
    # The first image hides one cell, as does its partner's mixture.
    assert [cells(visible, c) for c in (red, blue, grey)] == [3, 3, 2]
    assert [cells(mixed, c) for c in (red, blue, grey)] == [4, 4, 0]
    assert [cells(pasted, c) for c in (red, blue)] == [3, 3]
    assert cells(predicted, red) + cells(predicted, blue) < 1
    assert error[:60, -2 * 132 :][:, :60].max() > 50  # not black, and no name


def test_a_perfect_prediction_has_no_error(make_mixmim, monkeypatch):
    model = make_mixmim(data_preprocessor=dict(mean=[90.0] * 3, std=[60.0] * 3))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mask = torch.tensor([[[1, 0], [0, 1]]])

    def perfect(pred, target, mask):
        return target

    monkeypatch.setattr(model.head, 'reconstruct', perfect)
    rows = np.split(paint_reconstruction(model, images, mask, details=True), 6)
    original, _, _, predicted, pasted, error = (row[:, -2 * 132 :] for row in rows)
    assert np.array_equal(original, predicted) and np.array_equal(original, pasted)
    assert error[:60, :60].max() < 5  # black
    # The original has the true colours: images are 64 pixels, enlarged to 128.
    assert np.array_equal(original[:128:2, :128:2], images[0].permute(1, 2, 0).numpy())


def test_pictures_work_with_other_methods(make_mixmim):
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    for options in (dict(num_images=3), dict(filling='zeros')):
        picture = paint_reconstruction(make_mixmim(**options), images, details=True)
        assert picture.shape[0] == 6 * 132 and picture.shape[1] > 6 * 132


def test_names_of_rows_are_legible_where_the_picture_is_shown_at_half_its_size(
    make_mixmim,
):
    images = torch.zeros(8, 3, 64, 64, dtype=torch.uint8)
    picture = paint_reconstruction(make_mixmim(), images, details=True)
    names = np.split(picture[:, : -8 * 132, 0], 6)
    for name in names:
        rows, columns = np.nonzero(name < 128)
        assert np.ptp(rows) >= 14  # 7 pixels at half the size
        assert columns.max() < name.shape[1] - 2  # not cut off
