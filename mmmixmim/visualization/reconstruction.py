"""Pictures of images, their mixtures and what the model makes of them."""

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
    """Draw original, mixed image and reconstruction below each other.

    The encoder sees the mixed image only. Each cell of the reconstruction is a
    guess made without seeing it: in the image's own mixture, or in its
    partner's. With normalised targets, its mean and contrast are the true ones.

    Args:
        model: The pretrained model. It is put in evaluation mode.
        images: A batch as the dataloader gives it, (B, C, H, W) in the pixel
            values of the file. Image i is mixed with image B - 1 - i.
        path: Where the picture is written; the ending chooses the format.
        mask: Cells (1 or B, H / stride, W / stride), 1 where the partner
            shows. Defaults to None: drawn at random.
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
    """Undo the normalisation of one image: (C, H, W) to uint8 (H, W, 3)."""
    if hasattr(preprocessor, 'std'):
        image = image * preprocessor.std + preprocessor.mean
    image = image.round().clamp(0, 255).byte().cpu()
    if len(image) not in (1, 3):
        image = image.float().mean(0, keepdim=True).round().byte()
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy()
