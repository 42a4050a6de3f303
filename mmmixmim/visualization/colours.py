"""Show images of any number of channels in colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmmixmim.validation import UserError


class RGBProjection:
    """Turn images of any channels to RGB, all in the same way.

    - ``bands``: those channels are red, green and blue, or grey.
    - One and three channels are grey and RGB.
    - Any other number is projected to its first three principal components over all
      images, of two channels one, each with the sign that makes its sum of weights
      positive. Colours then tell materials apart and are not those that the eye sees.

    Images of 8 bits keep their brightness. Others, and principal components, are
    stretched so that the 2nd and the 98th percentile of the images become black and
    white, channel by channel; what is constant is black.

    Args:
        images: Images that determine the projection, not normalised, (N, C, H, W).
        bands: One or three channels, counted from 0. Defaults to None.
        stretch: Whether to stretch one or three channels. Defaults to False: values
            are from 0 to 255.
        weight: Pixels of weight 0 don't count, (N, H, W). Defaults to None.

    Raises:
        UserError: If there are no such bands.
    """

    def __init__(
        self,
        images: Tensor,
        bands: Sequence[int] | None = None,
        stretch: bool = False,
        weight: Tensor | None = None,
    ) -> None:
        channels = images.shape[1]
        images = images.detach().cpu().double()
        pixels = images.permute(0, 2, 3, 1)  # (N, H, W, C)
        pixels = (
            pixels.reshape(-1, channels) if weight is None else pixels[weight.cpu() > 0]
        )
        if bands is not None:
            if len(bands) not in (1, 3) or not 0 <= min(bands) <= max(bands) < channels:
                raise UserError(
                    f'bands must be one or three channels from 0 to {channels - 1}, '
                    f'got {list(bands)}.'
                )
            matrix = torch.eye(channels)[list(bands)]
        elif channels in (1, 3):
            matrix = torch.eye(channels)
        else:
            matrix, stretch = _principal_components(pixels), True
        self.matrix = matrix.double()  # (1 or 3, C)
        self.low = torch.zeros(len(matrix), 1, 1)
        self.range = torch.full_like(self.low, 255)
        if stretch and len(pixels):
            limits = np.percentile((pixels @ self.matrix.T).numpy(), [2, 98], axis=0)
            low, high = torch.from_numpy(limits).view(2, -1, 1, 1)
            spread = high - low
            flat = spread <= 1e-9 * torch.maximum(low.abs(), high.abs())
            self.low, self.range = low, spread.masked_fill(flat, torch.inf)

    def __call__(self, image: Tensor) -> np.ndarray:
        """Turn an image (C, H, W) to uint8 (H, W, 3)."""
        image = image.detach().cpu().double()
        shown = torch.einsum('kc,chw->khw', self.matrix, image)
        shown = (shown - self.low) * (255 / self.range)
        shown = shown.round().clamp(0, 255).byte()
        return shown.expand(3, -1, -1).permute(1, 2, 0).numpy()


def _principal_components(pixels: Tensor) -> Tensor:
    """First principal components of pixels (N, C), as rows."""
    count = 3 if pixels.shape[1] > 3 else 1
    if not len(pixels):
        return torch.eye(pixels.shape[1])[:count]
    # Of channels in different units none should rule.
    scale = pixels.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    centred = (pixels - pixels.mean(0)) / scale
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    rows = vectors.T.flip(0)[:count] / scale
    signs = torch.where(rows.sum(1, keepdim=True) < 0, -1.0, 1.0)
    return rows * signs
