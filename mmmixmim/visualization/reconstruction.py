"""Figures of images, their mixtures and their reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmmixmim.models import MixMIM


def draw_reconstruction(
    model: MixMIM, images: Tensor, path: str | Path, mask: Tensor | None = None
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
    """
    model.eval()
    preprocessor = model.data_preprocessor
    inputs = preprocessor(dict(inputs=images, data_samples=None))['inputs']
    result = model.reconstruct(inputs, mask)
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
            axis.imshow(_to_rgb(image, preprocessor), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _to_rgb(image: Tensor, preprocessor: torch.nn.Module) -> np.ndarray:
    """Undo the normalisation of an image (C, H, W) and return uint8 (H, W, 3)."""
    if hasattr(preprocessor, 'std'):
        image = image * preprocessor.std + preprocessor.mean
    image = image.round().clamp(0, 255).byte().cpu()
    if len(image) not in (1, 3):
        image = image.float().mean(0, keepdim=True).round().byte()
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()
