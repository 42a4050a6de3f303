"""Which of the mixed images owns a token: the one question behind MixMIM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmmixmim.validation import UserError, check_mask

from .filling import Filling


class TokenOwnership:
    """Ownership of every token of a batch of mixed images.

    K images are mixed to one. The owner of a cell is a number from 0 to K - 1: at a
    cell with owner k, mixture i shows the image :meth:`partner` k of image i. Owner 0
    is image i itself. There is one cell per token of the encoder's last map; at a finer
    map a cell is a square of tokens.

    By default K is 2, and the partner of image ``i`` in a batch of ``B`` is image
    ``B - 1 - i``. In an odd batch the middle image is its own partner: its two halves
    don't see each other, so what is hidden stays hidden.

    It fits the maps of any hierarchical encoder and knows no window and no stride.

    Args:
        owners: Cells (1, h, w), shared by the batch, or (B, h, w), with values from 0
            to ``images`` - 1.
        images: Number K of images in a mixture. Defaults to 2.
        filling: What stands in the hidden cells instead of a partner. Then owner 1 is
            no image but the filling. Defaults to None: the partners.
        isolated: Whether tokens of different owners must not exchange information.
            Defaults to True.
        passes: How many images of each mixture are reconstructed: all K, or 1, image i
            itself. Defaults to None: all, without a filling.
        counts: Number of cells of each owner in ``owners`` that the batch shares, from
            who drew them; then they are not checked. Defaults to None: checked and
            counted, which waits for the device.

    Raises:
        UserError: If ``owners`` has another shape or other values.

    Source: MixMAE (arXiv 2205.13137), section 3.
    """

    mixed = False  # by mix()

    def __init__(
        self,
        owners: Tensor,
        images: int = 2,
        filling: Filling | None = None,
        isolated: bool = True,
        passes: int | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        if counts is None:
            check_mask(owners, images)
        self.owners = owners.to(torch.uint8)
        self.images = images
        self.filling = filling
        self.isolated = isolated
        self.passes = passes or (images if filling is None else 1)
        if counts is None and len(owners) == 1:
            counts = self.owners.flatten().long().bincount(minlength=images).tolist()
        self._counts = counts

    @classmethod
    def of(
        cls,
        mask: Tensor | TokenOwnership,
        batch_size: int,
        grid: tuple[int, int],
        device: torch.device | str,
    ) -> TokenOwnership:
        """Return ``mask`` itself if it is an ownership, else make one of it.

        Args:
            mask: Cells, as for the class, or an ownership.
            batch_size: Number B of images.
            grid: Height and width of the images in cells.
            device: Device of the tokens, to which cells are moved.

        Raises:
            UserError: If it does not fit the batch and the grid.
        """
        ownership = mask if isinstance(mask, cls) else cls(mask)
        ownership.check(batch_size, grid)
        ownership.owners = ownership.owners.to(device)
        return ownership

    @classmethod
    def random(
        cls,
        grid: tuple[int, int],
        num_hidden: int,
        device: torch.device | str = 'cpu',
        images: int = 2,
        generator: torch.Generator | None = None,
        **kwargs,
    ) -> TokenOwnership:
        """Draw cells that the batch shares.

        Args:
            grid: Height h and width w in cells.
            num_hidden: Number of cells that image i does not own. Its partners share
                them equally; the first ones get one more if there is a remainder.
            device: Device of the cells.
            images: Number K of images in a mixture. Defaults to 2.
            generator: Draws the cells, on ``device``. Defaults to None: PyTorch's.
            **kwargs: See the class.
        """
        h, w = grid
        share, rest = divmod(num_hidden, images - 1)
        counts = [h * w - num_hidden]
        counts += [share + (k < rest) for k in range(images - 1)]
        rank = torch.rand(h * w, device=device, generator=generator)
        rank = rank.argsort().argsort()
        owners = torch.zeros_like(rank)
        for k in range(images - 1, 0, -1):
            owners = owners.masked_fill(rank < sum(counts[1 : k + 1]), k)
        return cls(owners.view(1, h, w), images, counts=counts, **kwargs)

    def check(self, batch_size: int, grid: tuple[int, int]) -> None:
        """Raise a UserError unless the cells fit the batch and its grid."""
        if self.grid != tuple(grid) or len(self.owners) not in (1, batch_size):
            raise UserError(
                f'Expected a mask of shape (1 or {batch_size}, {grid[0]}, {grid[1]}), '
                f'one cell for each token of the last map, got '
                f'{tuple(self.owners.shape)}.'
            )
        if self.images > 2 and batch_size % self.images:
            raise UserError(
                f'A batch of {batch_size} cannot be mixed {self.images} by '
                f'{self.images}: use a batch size that {self.images} divides, and '
                'drop_last=True in the dataloader.'
            )

    @property
    def mask(self) -> Tensor:
        """The cells as given: bool for two images, uint8 for more."""
        return self.owners.bool() if self.images == 2 else self.owners

    @property
    def grid(self) -> tuple[int, int]:
        """Height h and width w in cells."""
        return tuple(self.owners.shape[1:])

    @property
    def shared(self) -> bool:
        """Whether the batch shares the cells."""
        return len(self.owners) == 1

    @property
    def scored(self) -> Tensor | None:
        """Which cells of :meth:`select_masked` count.

        Returns:
            Bool (1 or B, h * w), or None where all count.
        """
        return None if self.passes > 1 else self.owners.flatten(1) != 0

    def partner(self, batch: Tensor, k: int) -> Tensor:
        """The images that owner ``k`` of each mixture stands for.

        For two images the partner of image i is image B - 1 - i. For more it is image
        i + k * B / K, counted round the batch.

        Args:
            batch: Something of each image, (B, ...).
            k: An owner.
        """
        if k == 0:
            return batch
        if self.images == 2:
            return batch.flip(0)
        return batch.roll(-k * (len(batch) // self.images), 0)

    def at(self, height: int, width: int) -> Tensor:
        """Owners of the tokens of a finer map.

        Args:
            height: Map height in tokens, a multiple of h.
            width: Map width in tokens, a multiple of w.

        Returns:
            uint8 tensor (1 or B, height, width).

        Raises:
            UserError: If h or w does not divide the map.
        """
        h, w = self.grid
        if height % h or width % w:
            raise UserError(
                f'A map of {height}x{width} tokens does not fit the mask of '
                f'{h}x{w} cells: both sides must be multiples.'
            )
        rows = self.owners.repeat_interleave(height // h, dim=1)
        return rows.repeat_interleave(width // w, dim=2)

    def order(self, height: int, width: int) -> tuple[Tensor, list[int]]:
        """Order that puts tokens of owner 0 first, then those of owner 1, and so on.

        Only shared cells have one order for the whole batch.

        Args:
            height: See :meth:`at`.
            width: See :meth:`at`.

        Returns:
            The permutation, (height * width), stable within each owner, and the number
            of tokens of each owner.
        """
        owners = self.at(height, width).flatten()
        h, w = self.grid
        tokens = (height // h) * (width // w)
        counts = [count * tokens for count in self._counts]
        return owners.long().argsort(stable=True), counts

    def mix(self, maps: Tensor) -> Tensor:
        """Show at each token what its owner shows, or the filling.

        Args:
            maps: One map per image, (B, H, W, C), channels last.

        Returns:
            The mixed maps, of the same shape.
        """
        if not self.mixed:  # set before by encode_decode if a compiler would refuse to
            self.mixed = True
        owners = self.at(*maps.shape[1:3]).unsqueeze(-1)
        if self.filling is not None:
            content = self.filling(maps, self.owners != 0)
            return torch.where(owners != 0, content.to(maps.dtype), maps)
        mixed = maps
        for k in range(1, self.images):
            mixed = torch.where(owners == k, self.partner(maps, k), mixed)
        return mixed

    def same_owner(self, queries: Tensor, keys: Tensor | None = None) -> Tensor:
        """Which tokens may see which.

        Args:
            queries: Owners (..., n), as from :meth:`at`, arranged like the tokens.
            keys: Owners (..., m). Defaults to None: ``queries``.

        Returns:
            Bool (..., n, m). All True if owners are not ``isolated``.
        """
        keys = queries if keys is None else keys
        same = queries.unsqueeze(-1) == keys.unsqueeze(-2)
        return same if self.isolated else torch.ones_like(same)

    def split(self, maps: Tensor) -> list[Tensor]:
        """Split a map into one for each owner, with zeros at the others' tokens.

        An operation that looks at neighbours, as a convolution, then sees one owner at
        a time. Undone by :meth:`merge`.

        Args:
            maps: (B, H, W, C), channels last.

        Returns:
            K maps of the same shape; ``maps`` alone if owners are not ``isolated``.
        """
        if not self.isolated:
            return [maps]
        owners = self.at(*maps.shape[1:3]).unsqueeze(-1)
        return [
            torch.where(owners == k, maps, maps.new_zeros(()))
            for k in range(self.images)
        ]

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """Take each token from the map of its owner.

        Args:
            parts: As many maps (B, H, W, C) as :meth:`split` gives, of any size that
                the cells divide.

        Returns:
            (B, H, W, C).
        """
        merged = parts[0]
        owners = self.at(*merged.shape[1:3]).unsqueeze(-1)
        for k, part in enumerate(parts[1:], start=1):
            merged = torch.where(owners == k, part, merged)
        return merged

    def pool(self, maps: Tensor, mean: bool = True) -> Tensor:
        """Pool each owner's tokens over the map, for norms and squeezes.

        Args:
            maps: (B, H, W, C), channels last.
            mean: Whether to take the mean. False takes the sum. Defaults to True.

        Returns:
            (B, H, W, C): at each token the mean or sum over the tokens of its owner.
            (B, 1, 1, C) if owners are not ``isolated``.
        """
        if not self.isolated:
            return maps.mean((1, 2), True) if mean else maps.sum((1, 2), True)
        owners = self.at(*maps.shape[1:3]).unsqueeze(-1)
        pooled = []
        for k, part in enumerate(self.split(maps)):
            total = part.sum((1, 2), keepdim=True)
            if mean:
                total = total / (owners == k).sum((1, 2), keepdim=True).clamp(min=1)
            pooled.append(total.expand_as(maps))
        return self.merge(pooled)

    def unmix(self, tokens: Tensor, mask_token: Tensor) -> Tensor:
        """Split mixed tokens into the inputs of the decoder's passes.

        Args:
            tokens: One token per cell, (B, h * w, C).
            mask_token: Replaces the tokens that a pass must not see, broadcastable to
                ``tokens``.

        Returns:
            (passes * B, h * w, C). The first B keep each image's own tokens, the next B
            those of owner 1, and so on.
        """
        owners = self._per_token()
        mask_token = mask_token.to(tokens.dtype)
        return torch.cat(
            [torch.where(owners == k, tokens, mask_token) for k in range(self.passes)]
        )

    def select_masked(self, passes: Sequence[Tensor]) -> Tensor:
        """Select at every cell what the mixed image does not show there.

        Of the decoder's passes these are the ones that did not see the cell. Of the
        images of each owner they are the targets of those predictions. Over the batch,
        cells that all images of a mixture share cover each cell of each image exactly
        K - 1 times.

        Args:
            passes: Belongs to owner 0, 1, ..., each (B, h * w, C).

        Returns:
            ((K - 1) * B, h * w, C): at a cell of owner k all passes but k, in order.
            With one pass that pass itself: :attr:`scored` says which cells count.
        """
        if len(passes) == 1:
            return passes[0]
        owners = self._per_token()
        selected = [
            torch.where(owners > j, passes[j], passes[j + 1])
            for j in range(len(passes) - 1)
        ]
        return selected[0] if len(selected) == 1 else torch.cat(selected)

    def targets(self, cells: Tensor) -> Tensor:
        """Select the true cells that the decoder's passes are to predict.

        Args:
            cells: Cells of the images, not mixed, (B, h * w, C).

        Returns:
            See :meth:`select_masked`.
        """
        return self.select_masked([self.partner(cells, k) for k in range(self.passes)])

    def regroup(self, masked: Tensor, visible: Tensor) -> Tensor:
        """Return predicted cells to the images that they belong to.

        Args:
            masked: What :meth:`select_masked` selected.
            visible: Fills cells that no mixture hides, (B, h * w, C). There are none
                with cells that the batch shares and all passes.

        Returns:
            All cells of each image, (B, h * w, C). Of several predictions the one from
            the mixture with the least k counts.
        """
        owners = self._per_token().expand(len(visible), -1, -1)
        parts = masked.split(len(visible))
        cells = visible
        for k in reversed(range(self.passes)):
            # Pass k of mixture i predicts image partner(k) of i, where it is hidden.
            below, above = parts[max(k - 1, 0)], parts[min(k, len(parts) - 1)]
            predicted = torch.where(owners > k, above, below)
            hidden = owners != k
            cells = torch.where(self._home(hidden, k), self._home(predicted, k), cells)
        return cells

    def _home(self, batch: Tensor, k: int) -> Tensor:
        """Undo :meth:`partner`: what mixtures hold of owner k, in order of images."""
        return self.partner(batch, -k % self.images)

    def _per_token(self) -> Tensor:
        """The owners as (1 or B, h * w, 1)."""
        return self.owners.flatten(1).unsqueeze(-1)
