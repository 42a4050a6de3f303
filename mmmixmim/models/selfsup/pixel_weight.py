"""How much each pixel of an image counts."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmixmim.ops import runs_eagerly, runs_on_cpu
from mmmixmim.validation import UserError


def collect_pixel_weight(samples: list | None, images: Tensor) -> Tensor | None:
    """Stack the ``pixel_weight`` of samples.

    Args:
        samples: One for each image, all with a ``pixel_weight`` (H, W) or none.
        images: (B, C, H, W).

    Returns:
        (B, H, W) on the device of the images, or None if there are no weights.

    Raises:
        UserError: If some weights are missing or do not fit the images, or, on a CPU,
            are negative.
    """
    weights = [getattr(sample, 'pixel_weight', None) for sample in samples or ()]
    if all(weight is None for weight in weights):
        return None
    sizes = {None if weight is None else tuple(weight.shape) for weight in weights}
    if sizes != {tuple(images.shape[2:])} or len(weights) != len(images):
        raise UserError(
            f'Each of {len(images)} images of {images.shape[2]}x{images.shape[3]} '
            'pixels needs a pixel_weight of this size, or none does; got '
            f'{len(weights)} of the sizes {sorted(map(str, sizes))}.'
        )
    weight = torch.stack(weights)
    check_pixel_weight(weight, images)
    return weight.to(images.device)


def check_pixel_weight(weight: Tensor, images: Tensor) -> None:
    """Raise unless weights are (B, H, W) as the images, and none is negative."""
    wanted = (len(images), *images.shape[2:])
    if tuple(weight.shape) != wanted:
        raise UserError(
            f'pixel_weight must have the shape {wanted} of the images, got '
            f'{tuple(weight.shape)}.'
        )
    # A look at weights on a GPU would wait for it.
    if runs_eagerly() and runs_on_cpu(weight):
        odd = weight[~((weight >= 0) & (weight < torch.inf))]
        if len(odd):
            raise UserError(
                'pixel_weight must be 0 where a pixel does not count, and positive and '
                f'finite elsewhere, got {odd[0].item():g}.'
            )


def blank_unweighted(images: Tensor, weight: Tensor | None) -> Tensor:
    """Set pixels of weight 0 to 0, so that the encoder sees nothing of them."""
    if weight is None:
        return images
    return torch.where(weight.unsqueeze(1) > 0, images, 0)
