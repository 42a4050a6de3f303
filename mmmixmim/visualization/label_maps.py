"""Figures of images next to their label maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch


def paint_instances(
    labels: np.ndarray, masks: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Merge instance masks into one label map.

    Args:
        labels: Class of each instance (N, ), in descending order of confidence.
        masks: Mask of each instance, bool (N, H, W).
        size: Height and width, for N = 0.

    Returns:
        Class of the most confident instance at each pixel, -1 for none, int (H, W).
    """
    canvas = np.full(size, -1)
    for label, mask in zip(labels[::-1], masks[::-1], strict=True):
        canvas[mask] = label
    return canvas


def draw_label_maps(
    pictures: list[np.ndarray],
    columns: dict[str, list[np.ndarray]],
    classes: list[str],
    path: str | Path,
) -> None:
    """Save a figure with one row per image: the image, then its label maps.

    Args:
        pictures: Images, RGB, uint8 (H, W, 3).
        columns: Title and label maps of each further column. Label maps are int
            (H, W), one per image, with -1 (white) for no class.
        classes: Class names for the legend, at most ten.
        path: Output file. Missing parent folders are created.
    """
    colours = colormaps['tab10']
    shape = (len(pictures), len(columns) + 1)
    figure = Figure((1.6 * shape[1], 1.6 * shape[0] + 0.6))
    axes = figure.subplots(*shape, squeeze=False)
    for row, picture in zip(axes, pictures, strict=True):
        row[0].imshow(picture)
    for column, (title, maps) in enumerate(columns.items(), start=1):
        axes[0, column].set_title(title, fontsize=8)
        for axis, labels in zip(axes[:, column], maps, strict=True):
            painted = colours(np.maximum(labels, 0))
            painted[labels < 0] = 1
            axis.imshow(painted)
    for axis in axes.flat:
        axis.axis('off')
    patches = [Patch(color=colours(i), label=name) for i, name in enumerate(classes)]
    figure.legend(handles=patches, loc='lower center', ncols=len(classes), fontsize=8)
    figure.subplots_adjust(0.01, 0.6 / (1.6 * shape[0] + 0.6), 0.99, 0.95, 0.04, 0.04)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
