"""Figures of images, their mixtures and their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmmixmim.models import MixMIM

from .colours import RGBProjection


def draw_reconstruction(
    model: MixMIM,
    images: Tensor,
    path: str | Path,
    mask: Tensor | None = None,
    bands: Sequence[int] | None = None,
) -> None:
    """Save a figure with rows for the originals, mixtures and reconstructions.

    The encoder sees only the mixed images. Each image occurs in two of them, its
    own mixture and its partner's. Each cell of a reconstruction is predicted from
    the mixture that does not show it. With normalised targets, predictions get the
    mean and standard deviation of the true patches.

    Args:
        model: The pretrained model. It is switched to evaluation mode.
        images: Batch from the dataloader, before normalisation, (B, C, H, W).
            Image i is mixed with image B - 1 - i.
        path: Output file. Its extension sets the format, and missing parent folders
            are created.
        mask: Cell mask (1 or B, H / stride, W / stride), 1 where the partner shows.
            Defaults to None: random.
        bands: Three channels to show as red, green and blue, or one to show as grey.
            Defaults to None: see :class:`RGBProjection`.
    """
    model.eval()
    preprocessor = model.data_preprocessor
    inputs = preprocessor(dict(inputs=images, data_samples=None))['inputs']
    weight = None
    if images.is_floating_point() and images.isnan().any():  # pixels without data
        weight = (~images.isnan().any(1)).float().to(inputs.device)
    result = model.reconstruct(inputs, mask, weight)
    to_rgb = RGBProjection(
        _denormalise(inputs, preprocessor),
        bands,
        stretch=images.dtype != torch.uint8,
        weight=weight,
    )
    rows = {
        'original': inputs,
        'mixed': result['mixed'],
        'reconstructed': result['reconstruction'],
    }

    height, width = images.shape[2:]
    figure = Figure(figsize=(1.4 * len(images) + 0.3, 4.2 * height / width + 0.1))
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for row, (title, batch) in zip(axes, rows.items(), strict=True):
        row[0].set_ylabel(title)
        for axis, image in zip(row, batch, strict=True):
            axis.imshow(
                to_rgb(_denormalise(image, preprocessor)), interpolation='nearest'
            )
            axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _denormalise(images: Tensor, preprocessor: torch.nn.Module) -> Tensor:
    """Undo the normalisation of images (..., C, H, W)."""
    if hasattr(preprocessor, 'std'):
        return images * preprocessor.std + preprocessor.mean
    return images
