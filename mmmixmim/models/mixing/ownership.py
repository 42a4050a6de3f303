"""Which of the two images owns a token: the one question behind MixMIM."""

from __future__ import annotations

import torch
from torch import Tensor

from mmmixmim.validation import UserError, check_mask


class TokenOwnership:
    """Ownership of every token of a batch of mixed images.

    Images are mixed in pairs: the partner of image ``i`` in a batch of ``B`` is image
    ``B - 1 - i``. The mask of the paper, with one cell per token of the encoder's last
    map, says which image shows where. At a finer map a cell is a square of tokens. In
    an odd batch the middle image is its own partner: its two halves don't see each
    other, so what is hidden stays hidden.

    It fits the maps of any hierarchical encoder and knows no window and no stride.

    Args:
        mask: Cells (1, h, w), shared by the batch, or (B, h, w). 1 (or True) where the
            partner shows, 0 where the image itself does.
        num_hidden: Number of cells of a shared mask where the partner shows. Defaults
            to None: counted, which waits for the device.

    Raises:
        UserError: If ``mask`` has another shape or other values.

    Source: MixMAE (arXiv 2205.13137), section 3.
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
        """Return ``mask`` itself if it is an ownership, else make one of it.

        Args:
            mask: Cells, as for the class, or an ownership.
            device: Device of the tokens, to which cells are moved.
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
        """Draw a mask that the batch shares.

        Args:
            grid: Height h and width w in cells.
            num_hidden: Number of cells that show the partner.
            device: Device of the mask.
        """
        h, w = grid
        rank = torch.rand(h * w, device=device).argsort().argsort()
        return cls((rank < num_hidden).view(1, h, w), num_hidden)

    def check(self, batch_size: int, grid: tuple[int, int]) -> None:
        """Raise a UserError unless the mask fits the batch and the grid of cells."""
        if self.grid != tuple(grid) or len(self.mask) not in (1, batch_size):
            raise UserError(
                f'Expected a mask of shape (1 or {batch_size}, {grid[0]}, {grid[1]}), '
                f'one cell for each token of the last map, got '
                f'{tuple(self.mask.shape)}.'
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Height h and width w in cells."""
        return tuple(self.mask.shape[1:])

    @property
    def shared(self) -> bool:
        """Whether the batch shares one mask."""
        return len(self.mask) == 1

    def at(self, height: int, width: int) -> Tensor:
        """Ownership of the tokens of a finer map.

        Args:
            height: Map height in tokens, a multiple of h.
            width: Map width in tokens, a multiple of w.

        Returns:
            Bool tensor (1 or B, height, width), True where the partner shows.

        Raises:
            UserError: If h or w does not divide the map.
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
        """Order that puts a map's own tokens first, then the partner's.

        Only a shared mask has one order for the whole batch.

        Args:
            height: See :meth:`at`.
            width: See :meth:`at`.

        Returns:
            The permutation, (height * width), stable within each owner, and the number
            of own tokens.
        """
        partner = self.at(height, width).flatten()
        h, w = self.grid
        own = (h * w - self._num_hidden) * (height // h) * (width // w)
        return partner.long().argsort(stable=True), own

    def mix(self, maps: Tensor) -> Tensor:
        """Mix each map with its partner's.

        Args:
            maps: One map per image, (B, H, W, C), channels last.

        Returns:
            The mixed maps, of the same shape.
        """
        partner = self.at(*maps.shape[1:3]).unsqueeze(-1)
        return torch.where(partner, maps.flip(0), maps)

    def unmix(self, tokens: Tensor, mask_token: Tensor) -> Tensor:
        """Split mixed tokens into the inputs of the decoder's two passes.

        Args:
            tokens: One token per cell, (B, h * w, C).
            mask_token: Replaces the tokens that a pass must not see, broadcastable to
                ``tokens``.

        Returns:
            (2B, h * w, C). The first B keep each image's own tokens, the last B its
            partner's.
        """
        partner = self._per_token()
        mask_token = mask_token.to(tokens.dtype)
        own = torch.where(partner, mask_token, tokens)
        others = torch.where(partner, tokens, mask_token)
        return torch.cat([own, others])

    def select_masked(self, own: Tensor, partner: Tensor) -> Tensor:
        """Select at every cell what the mixed image does not show there.

        Of the decoder's two passes this is the one that did not see the cell. Of the
        images and the flipped batch it is the target of that prediction. Over the
        batch, a mask that both images of a pair share covers each cell of each image
        exactly once.

        Args:
            own: Belongs to each image itself, (B, h * w, C).
            partner: Belongs to its partner, (B, h * w, C).

        Returns:
            ``own`` where the partner shows, ``partner`` where the image itself does,
            (B, h * w, C).
        """
        return torch.where(self._per_token(), own, partner)

    def regroup(self, masked: Tensor, visible: Tensor) -> Tensor:
        """Return predicted cells to the images that they belong to.

        Args:
            masked: What :meth:`select_masked` selected, (B, h * w, C).
            visible: Fills cells that neither mixed image hides, (B, h * w, C). There
                are none with a mask that both images of a pair share.

        Returns:
            All cells of each image, (B, h * w, C).
        """
        masked_here = self._per_token().expand(len(masked), -1, -1)
        masked_there = ~masked_here.flip(0)
        elsewhere = torch.where(masked_there, masked.flip(0), visible)
        return torch.where(masked_here, masked, elsewhere)

    def _per_token(self) -> Tensor:
        """The mask as (1 or B, h * w, 1)."""
        return self.mask.flatten(1).unsqueeze(-1)
