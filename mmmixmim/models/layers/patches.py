"""From pixels to tokens, and from tokens to larger ones."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mmmixmim.ops import Linear

from .norm import Norm


class PatchEmbed(nn.Module):
    """Embed each patch of an image by a linear map and a norm.

    Images that patches don't divide are padded with zeros at the bottom and right.

    Args:
        in_channels: Channels of the images.
        dim: Channels of the tokens.
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = Norm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, H / patch, W / patch, dim), rounded up."""
        patch = self.proj.stride[0]
        down, right = (-side % patch for side in images.shape[2:])
        if down or right:
            images = F.pad(images, (0, right, 0, down))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merge each 2x2 square of tokens into one token of twice the channels.

    As in Swin (arXiv 2103.14030), section 3.1. The four neighbours are concatenated in
    the order of its code: top left, bottom left, top right, bottom right. Maps of odd
    sides are padded with zeros at the bottom and right.

    Args:
        dim: Channels of the tokens before merging.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = Norm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Merge (B, H, W, C) to (B, H / 2, W / 2, 2 * C), rounded up."""
        down, right = (side % 2 for side in maps.shape[1:3])
        if down or right:
            maps = F.pad(maps, (0, 0, 0, right, 0, down))
        squares = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (B, h, 2, w, 2, C)
        merged = squares.permute(0, 1, 3, 4, 2, 5).flatten(3)  # (B, h, w, 4 * C)
        return self.reduction(self.norm(merged))
