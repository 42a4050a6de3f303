"""Figures of a classifier's confusions and worst mistakes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from mmmixmim.datasets.no_data import check_no_data, pixel_weights
from mmmixmim.datasets.readers import PillowReader, middle_of, open_image
from mmmixmim.datasets.transforms.encoded_image import EncodedImage

from .colours import RGBProjection

_SIDE = 128  # pixels of a picture
_COLUMNS = 6


def draw_confusion(mistakes: dict, path: str | Path) -> None:
    """Save the confusion matrix, as shares of each true class.

    Args:
        mistakes: From :func:`mmmixmim.evaluation.find_mistakes`.
        path: Output file.
    """
    counts = np.array(mistakes['confusion'])
    classes = [_as_text(each) for each in mistakes['classes']]
    side = min(20, 2.5 + 0.35 * len(classes))
    figure = Figure(figsize=(side, side))
    axis = figure.subplots()
    axis.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap='Blues')
    axis.set(xlabel='answer', ylabel='true class')
    if len(classes) <= 50:
        axis.set_xticks(range(len(classes)), classes, rotation=90)
        axis.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                dark = count > 0.5 * counts[row].sum()
                colour = 'white' if dark else 'black'
                axis.text(
                    column, row, count, ha='center', va='center', color=colour, size=8
                )
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def draw_worst(
    mistakes: dict, path: str | Path, no_data: float | str | None = None
) -> None:
    """Save the worst mistakes with what they are and what the model said.

    Args:
        mistakes: From :func:`mmmixmim.evaluation.find_mistakes`, with at least one.
        path: Output file.
        no_data: Value of pixels without data, or 'nan'. Defaults to None: all finite
            ones are data.
    """
    worst = mistakes['worst']
    rows = math.ceil(len(worst) / _COLUMNS)
    figure = Figure(figsize=(2 * _COLUMNS, 2.4 * rows))
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, mistake in zip(axes, worst, strict=False):
        axis.imshow(_thumbnail(Path(mistake['file']), no_data))
        share = f'{mistake["confidence"]:.0%}'
        title = f'{mistake["label"]}\nnot {mistake["answer"]} ({share})'
        axis.set_title(_as_text(title), size=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _as_text(name: str) -> str:
    """Keep matplotlib from reading what stands between dollars as a formula."""
    return name.replace('$', r'\$')


def _thumbnail(file: Path, no_data: float | str | None) -> np.ndarray:
    with open_image(file) as image:
        if not isinstance(image, PillowReader) or image.dtype.itemsize > 1:
            pixels = image.read(middle_of(image.size))
            return _false_colours(pixels, no_data)
    image = EncodedImage(file.read_bytes())  # a picture, which is trained on as RGB
    scale = _SIDE / max(image.size)
    size = tuple(max(1, round(scale * side)) for side in image.size)
    pixels = image.resized_crop((0, 0, *image.size), size)
    return pixels.permute(1, 2, 0).numpy()


def _false_colours(pixels: np.ndarray, no_data: float | str | None) -> np.ndarray:
    """Show an image of any channels; pixels without data are black."""
    step = max(1, max(pixels.shape[:2]) // _SIDE)
    pixels, stretch = pixels[::step, ::step], pixels.dtype != np.uint8
    if pixels.dtype.kind == 'f':
        pixels = np.where(np.isfinite(pixels), pixels, np.nan)
    no_data = check_no_data('nan' if no_data is None else no_data)
    valid = torch.from_numpy(pixel_weights(pixels, no_data) > 0)
    image = torch.from_numpy(pixels.astype(np.float64))
    image = torch.where(valid[..., None], image, 0).permute(2, 0, 1)
    project = RGBProjection(image[None], stretch=stretch, weight=valid[None])
    return torch.from_numpy(project(image)).mul(valid[..., None]).numpy()
