"""How a map's tokens are laid out for window attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .token_ownership import TokenOwnership


class WindowLayout:
    """Arrangement of a map's tokens into windows that attend by themselves.

    A stage makes one layout, arranges its map once, runs all its blocks on the
    arrangement and restores the map at the end: everything else in a block
    works per token.

    - A map that one window covers, in a batch that shares its ownership grid,
      has its tokens ordered by owner. Attention among each owner's tokens is
      then a plain dense attention, with no mask and half the work.
    - Any other map is cut into windows, padded where they do not divide it. A
      mask keeps tokens of different owners, and padding, from seeing each
      other.

    Args:
        size: Height and width of the map.
        window: Height and width of the window that the bias table is made
            for. A map smaller than that uses the matching part of the table.
        ownership: Who owns each token; None when all tokens see each other.
        device: Where the tokens are.
        shift: Whether the windows lie half a window further up and left than
            usual, along the sides that hold several. Defaults to False.

    Attributes:
        segments (list[tuple[slice, Tensor]]): Each run of a window's tokens
            that attend among themselves, with the rows of the bias table for
            every query and key in it, (n, n).
        blocked (Tensor | None): Bool (1 or B, windows, 1, N, N), True where a
            query must not see a key. None where segments say it all.
    """

    def __init__(
        self,
        size: tuple[int, int],
        window: tuple[int, int],
        ownership: TokenOwnership | None,
        device: torch.device,
        shift: bool = False,
    ) -> None:
        self.size = size
        self.window = tuple(map(min, window, size))
        sides = list(zip(size, self.window, strict=True))
        self.start = tuple(w - w // 2 if shift and s > w else 0 for s, w in sides)
        lengths = [s + start for s, start in zip(size, self.start, strict=True)]
        self.counts = tuple(
            -(-length // w) for length, w in zip(lengths, self.window, strict=True)
        )
        self.padding = tuple(
            n * w - length
            for n, w, length in zip(self.counts, self.window, lengths, strict=True)
        )
        self.order = None
        self.blocked = None

        index = relative_position_index(self.window, window, device)
        covers = self.counts == (1, 1)
        if ownership is not None and ownership.shared and covers:
            self.order, own = ownership.order(*size)
            self.inverse = self.order.argsort()
            index = index[self.order][:, self.order]
            runs = [slice(0, own), slice(own, len(self.order))]
        else:
            runs = [slice(0, len(index))]
            if ownership is not None or any(self.padding + self.start):
                self.blocked = self._blocked(ownership, device)
        self.segments = [(r, index[r, r]) for r in runs if r.stop > r.start]

    def arrange(self, maps: Tensor) -> Tensor:
        """Lay a map's tokens out in windows.

        Args:
            maps: (B, H, W, C).

        Returns:
            (B, windows, N, C), N tokens a window.
        """
        if self.counts == (1, 1):
            tokens = maps.flatten(1, 2)
            if self.order is not None:
                tokens = tokens[:, self.order]
            return tokens.unsqueeze(1)
        return self._cut(maps)

    def restore(self, windows: Tensor) -> Tensor:
        """Undo :meth:`arrange`.

        Args:
            windows: (B, windows, N, C).

        Returns:
            (B, H, W, C).
        """
        if self.counts == (1, 1):
            tokens = windows.squeeze(1)
            if self.order is not None:
                tokens = tokens[:, self.inverse]
            return tokens.unflatten(1, self.size)
        (height, width), (h, w) = self.size, self.window
        maps = windows.unflatten(2, (h, w)).unflatten(1, self.counts)
        maps = maps.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        top, left = self.start
        return maps[:, top : top + height, left : left + width]

    def _cut(self, maps: Tensor, fill: int = 0) -> Tensor:
        """Cut (B, H, W, C) into windows, padding with ``fill`` where needed."""
        (top, left), (down, right) = self.start, self.padding
        (rows, columns), (h, w) = self.counts, self.window
        if top or left or down or right:
            maps = F.pad(maps, (0, 0, left, right, top, down), value=fill)
        windows = maps.unflatten(2, (columns, w)).unflatten(1, (rows, h))
        return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _blocked(
        self, ownership: TokenOwnership | None, device: torch.device
    ) -> Tensor:
        """Mask from the group of each token: own, the partner's, or padding."""
        if ownership is None:
            groups = torch.zeros(1, *self.size, dtype=torch.uint8, device=device)
        else:
            groups = ownership.at(*self.size).to(torch.uint8)
        groups = self._cut(groups.unsqueeze(-1), fill=2)
        return (groups != groups.transpose(-1, -2)).unsqueeze(2)


def relative_position_index(
    window: tuple[int, int], table: tuple[int, int], device: torch.device
) -> Tensor:
    """Row of the relative position bias table for each pair of tokens.

    Args:
        window: Height and width of the window at hand.
        table: Height and width of the window that the table is made for, at
            least as large. The table's rows run over the relative positions
            from (-height + 1, -width + 1) to (height - 1, width - 1).
        device: Where the index lives.

    Returns:
        Long tensor (N, N) with N = window height * width: query, key.
    """
    offsets = []
    for size, largest in zip(window, table, strict=True):
        place = torch.arange(size, device=device)
        offsets.append(place[:, None] - place[None, :] + largest - 1)
    rows, columns = offsets
    index = rows[:, None, :, None] * (2 * table[1] - 1) + columns[None, :, None, :]
    return index.flatten(2).flatten(0, 1)


def load_bias_table(
    state_dict: dict[str, Tensor],
    name: str,
    window: tuple[int, int],
    source: tuple[int, int] | None,
) -> None:
    """Resize a bias table in a state dict to the model's window, in place.

    The table is an image of relative positions: it is resized by bicubic
    interpolation, as the authors do.

    Args:
        state_dict: What is being loaded. Without ``name`` in it nothing happens.
        name: Key of a table ((2h - 1) * (2w - 1), heads).
        window: Height h and width w of the model's window.
        source: Those of the table's window, if they are known. Another table
            is taken for one of the model's window if it has as many rows, else
            for a square window's.
    """
    table = state_dict.get(name)
    if table is None:
        return
    size = tuple(2 * side - 1 for side in window)
    if source is not None:
        source = tuple(2 * side - 1 for side in source)
    else:
        side = math.isqrt(len(table))
        square = side**2 == len(table) != math.prod(size)
        source = (side, side) if square else size
    if math.prod(source) != len(table):
        raise ValueError(
            f'{name} has {len(table)} rows, which fit neither the window '
            f'{window[0]}x{window[1]} of this model nor a square one: load it into a '
            'model of the window_size that it was made for.'
        )
    if source != size:
        image = table.float().t().reshape(1, -1, *source)
        image = F.interpolate(image, size=size, mode='bicubic', align_corners=False)
        state_dict[name] = image.flatten(2)[0].t().to(table.dtype)
