"""What can stand in hidden cells instead of another image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmmixmim.validation import UserError


class Filling(nn.Module):
    """Content for the hidden cells of embedded images.

    Args:
        channels: Channels C of the embedding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """Make the content.

        Args:
            maps: Embedded images, (B, H, W, C).
            hidden: Which cells are hidden, bool (1 or B, h, w).

        Returns:
            Content of all tokens, broadcastable to ``maps``.
        """
        raise NotImplementedError


class MaskToken(Filling):
    """A learned token, as in SimMIM (arXiv 2111.09886)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.token = nn.Parameter(torch.zeros(channels))
        nn.init.trunc_normal_(self.token, std=0.02)

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """Show the token."""
        return self.token


class Zeros(Filling):
    """Zeros."""

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """Show nothing."""
        return maps.new_zeros(())


class Noise(Filling):
    """Standard normal noise, new in every batch."""

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """Draw the noise."""
        return torch.randn_like(maps)


class ShuffledCells(Filling):
    """Visible cells of the same image, drawn at random for each hidden cell."""

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        """Draw a visible cell for each cell, and copy its tokens."""
        _, h, w = hidden.shape
        cells = maps.unflatten(2, (w, -1)).unflatten(1, (h, -1))  # (B, h, s, w, s, C)
        cells = cells.transpose(2, 3).flatten(1, 2)  # (B, h * w, s, s, C)
        visible = (~hidden).flatten(1).float()  # (1 or B, h * w)
        source = torch.multinomial(visible, h * w, replacement=True)
        source = source.expand(len(maps), -1)
        images = torch.arange(len(maps), device=maps.device).unsqueeze(1)
        cells = cells[images, source].unflatten(1, (h, w)).transpose(2, 3)
        return cells.flatten(3, 4).flatten(1, 2)


FILLINGS = dict(
    mask_token=MaskToken, zeros=Zeros, noise=Noise, shuffled_cells=ShuffledCells
)


def build_filling(name: str, channels: int) -> Filling | None:
    """Build a filling by its name.

    Args:
        name: A key of ``FILLINGS``, or 'partner'.
        channels: Channels of the embedding.

    Returns:
        The filling; None for 'partner'.

    Raises:
        UserError: If there is no such filling.
    """
    if name == 'partner':
        return None
    if name not in FILLINGS:
        raise UserError(
            f'Unknown filling {name!r}: choose partner or one of {", ".join(FILLINGS)}.'
        )
    return FILLINGS[name](channels)
