"""Which of the two images owns a token: the one question behind MixMIM."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmixmim.validation import UserError, check_mask


class TokenOwnership:
    """Ownership of every token of a batch of mixed images.

    Images are mixed in pairs: the partner of image ``i`` in a batch of ``B``
    is image ``B - 1 - i``. A cell grid, one cell for each token of the
    encoder's last map, says which image shows where; at a finer map a cell is
    a square of tokens. In an odd batch the middle image is its own partner:
    its two halves still don't see each other, so what is hidden stays hidden.

    The object works on any hierarchical encoder's maps, it knows nothing about
    attention windows or strides.

    Args:
        mask: Cell grid of shape (1, h, w) for a grid that the whole batch
            shares, or (B, h, w). 1 (or True) where the partner shows, 0 where
            the image itself does.
        num_hidden: Number of cells of a shared grid where the partner shows,
            if it is known: counting them waits for the device. Defaults to
            None: counted.

    Source: MixMAE (arXiv 2205.13137), section 3.1.
    """

    def __init__(self, mask: Tensor, num_hidden: int | None = None) -> None:
        check_mask(mask)
        if num_hidden is None and len(mask) == 1:
            num_hidden = int(mask.sum())
        self.mask = mask.bool()
        self._num_hidden = num_hidden

    @classmethod
    def of(
        cls, mask: Tensor | TokenOwnership, device: torch.device | str
    ) -> TokenOwnership:
        """Return ``mask`` itself if it is an ownership already, else make one.

        Args:
            mask: A cell grid, as for the class, or an ownership.
            device: Where the tokens are, to which a cell grid is moved.
        """
        if isinstance(mask, cls):
            return mask
        ownership = cls(mask)
        ownership.mask = ownership.mask.to(device)
        return ownership

    @classmethod
    def random(
        cls, grid: tuple[int, int], num_hidden: int, device: torch.device | str = 'cpu'
    ) -> TokenOwnership:
        """Draw a grid for a batch to share.

        Args:
            grid: Height and width of the cell grid.
            num_hidden: Number of cells that show the partner.
            device: Where the mask lives.
        """
        h, w = grid
        rank = torch.rand(h * w, device=device).argsort().argsort()
        return cls((rank < num_hidden).view(1, h, w), num_hidden)

    def check(self, batch_size: int, grid: tuple[int, int]) -> None:
        """Refuse a batch or a cell grid that the mask is not made for."""
        if self.grid != tuple(grid) or len(self.mask) not in (1, batch_size):
            raise UserError(
                f'Expected a mask of shape (1 or {batch_size}, {grid[0]}, {grid[1]}), '
                f'one cell for each token of the last map, got '
                f'{tuple(self.mask.shape)}.'
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the cell grid."""
        return tuple(self.mask.shape[1:])

    @property
    def shared(self) -> bool:
        """Whether the batch shares one grid."""
        return len(self.mask) == 1

    def at(self, height: int, width: int) -> Tensor:
        """Ownership at a finer map.

        Args:
            height: Map height, a multiple of the grid's.
            width: Map width, a multiple of the grid's.

        Returns:
            Bool tensor (1 or B, height, width), True where the partner shows.
        """
        h, w = self.grid
        if height % h or width % w:
            raise UserError(
                f'A map of {height}x{width} tokens does not fit the mask of '
                f'{h}x{w} cells: both sides must be multiples.'
            )
        rows = self.mask.repeat_interleave(height // h, dim=1)
        return rows.repeat_interleave(width // w, dim=2)

    def order(self, height: int, width: int) -> tuple[Tensor, int]:
        """Order that puts a map's own tokens first and the partner's after.

        Only a shared grid has one order for the whole batch.

        Returns:
            The permutation, (height * width), stable within each owner, and the
            number of own tokens.
        """
        partner = self.at(height, width).flatten()
        h, w = self.grid
        own = (h * w - self._num_hidden) * (height // h) * (width // w)
        return partner.long().argsort(stable=True), own

    def mix(self, maps: Tensor) -> Tensor:
        """Show the partner's tokens where they own (paper, section 3.1).

        Args:
            maps: One map per image, (B, H, W, C), channels last.

        Returns:
            The mixed maps, of the same shape.
        """
        partner = self.at(*maps.shape[1:3]).unsqueeze(-1)
        return torch.where(partner, maps.flip(0), maps)

    def unmix(self, tokens: Tensor, mask_token: Tensor) -> Tensor:
        """Split mixed tokens into the decoder's two passes (section 3.2).

        Args:
            tokens: One row per cell, (B, h * w, C).
            mask_token: What stands for a token that a pass must not see,
                broadcastable to ``tokens``.

        Returns:
            (2B, h * w, C). The first B keep each image's own tokens and the
            last B keep its partner's.
        """
        partner = self._rows()
        mask_token = mask_token.to(tokens.dtype)
        own = torch.where(partner, mask_token, tokens)
        others = torch.where(partner, tokens, mask_token)
        return torch.cat([own, others])

    def hidden(self, own: Tensor, partner: Tensor) -> Tensor:
        """Choose at every cell what the mixed image does not show there.

        Of the decoder's two passes this keeps the one that had to guess the
        cell. Of a batch of images and its flipped copy it keeps the pixels
        that were guessed. Over the batch, and with a grid that both images of
        a pair share, it covers each cell of each image exactly once.

        Args:
            own: What belongs to each image itself, (B, h * w, C).
            partner: What belongs to its partner, (B, h * w, C).

        Returns:
            ``own`` where the partner shows and ``partner`` where the image
            itself does, (B, h * w, C).
        """
        return torch.where(self._rows(), own, partner)

    def regroup(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Bring guessed cells back to the images that they belong to.

        Args:
            hidden: What :meth:`hidden` chose, (B, h * w, C).
            visible: What to put into a cell that neither mixed image hides,
                (B, h * w, C). There is none with a grid that both images of a
                pair share.

        Returns:
            One row per cell of each image, (B, h * w, C).
        """
        hidden_here = self._rows().expand(len(hidden), -1, -1)
        hidden_there = ~hidden_here.flip(0)
        elsewhere = torch.where(hidden_there, hidden.flip(0), visible)
        return torch.where(hidden_here, hidden, elsewhere)

    def _rows(self) -> Tensor:
        return self.mask.flatten(1).unsqueeze(-1)
