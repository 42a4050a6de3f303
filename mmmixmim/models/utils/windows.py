"""How a map's tokens are laid out for window attention."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmixmim.validation import UserError

from .permutation import permute
from .token_ownership import TokenOwnership


@dataclass
class Segment:
    """Tokens side by side that attend in windows of equal size.

    Attributes:
        start: Place of the first token.
        windows: Number of windows.
        length: Number of tokens n of each window.
        index: Row of the bias table for each query and key of a window, (n, n).
        blocked: Bool (1 or B, windows, 1, n, n), True where a query must not see
            a key. None where all of a window see each other.
    """

    start: int
    windows: int
    length: int
    index: Tensor
    blocked: Tensor | None = None

    @property
    def tokens(self) -> slice:
        """Where the segment's tokens are."""
        return slice(self.start, self.start + self.windows * self.length)


class WindowLayout:
    """Arrangement of a map's tokens into windows that attend by themselves.

    A stage makes one layout, arranges its map once, runs all its blocks on the
    arrangement and restores the map at the end: everything else in a block
    works per token. Tokens are only put into another order. There is no padding:
    windows that stick out of the map have fewer tokens.

    Tokens of different owners must not see each other. Where a batch shares its
    ownership grid, each owner's tokens stand side by side within a window, and
    attend by themselves: no mask, and half the work. How many they are depends on
    the mask where there are several windows, so a GPU or a compiler, which want
    shapes that stay, and grids that differ by image get masked windows there.

    Args:
        size: Height and width of the map.
        window: Height and width of the window that the bias table is made
            for. A map smaller than that uses the matching part of the table.
        ownership: Who owns each token; None when all tokens see each other.
        device: Where the tokens are.
        shift: Whether the windows lie half a window further up and left than
            usual, along the sides that hold several. Defaults to False.

    Attributes:
        segments (list[Segment]): All tokens, in the order of the arrangement.
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
        self.segments: list[Segment] = []
        groups = window_tokens(size, window, shift, device)
        covered = sum(len(tokens) for tokens, _ in groups) == 1
        order = []
        for tokens, sides in groups:
            index = relative_position_index(sides, window, device)
            if ownership is None:
                self._append(len(tokens), index)
            elif ownership.shared and covered:
                tokens, own = ownership.order(*size)
                self._append_owners(index, tokens, own)
            elif ownership.shared and _shapes_may_vary(device):
                owners = ownership.at(*size).flatten()[tokens].long()
                ranks = owners.argsort(stable=True)
                tokens = tokens.gather(1, ranks)
                owns = (sides[0] * sides[1] - owners.sum(1)).tolist()
                for rank, own in zip(ranks, owns, strict=True):
                    self._append_owners(index, rank, own)
            else:
                owners = ownership.at(*size).flatten(1)[:, tokens]
                blocked = owners.unsqueeze(-1) != owners.unsqueeze(-2)
                self._append(len(tokens), index, blocked.unsqueeze(2))
            order.append(tokens.flatten())
        self.order = self.inverse = None
        if not covered or ownership is not None:
            self.order = torch.cat(order)
            self.inverse = self.order.argsort()
        self._rows = torch.cat([each.index.flatten() for each in self.segments])

    def arrange(self, maps: Tensor) -> Tensor:
        """Put a map's tokens side by side.

        Args:
            maps: (B, H, W, C).

        Returns:
            (B, H * W, C).
        """
        tokens = maps.flatten(1, 2)
        if self.order is None:
            return tokens
        return permute(tokens, self.order, self.inverse)

    def restore(self, tokens: Tensor) -> Tensor:
        """Undo :meth:`arrange`.

        Args:
            tokens: (B, H * W, C).

        Returns:
            (B, H, W, C).
        """
        if self.order is not None:
            tokens = permute(tokens, self.inverse, self.order)
        return tokens.unflatten(1, self.size)

    def biases(self, table: Tensor) -> list[Tensor]:
        """Gather what is added to the logits.

        Args:
            table: Relative position bias table (rows, heads).

        Returns:
            (heads, n, n) for each segment.
        """
        heads = table.shape[1]
        rows = self._rows.expand(heads, -1)
        # One head after the other, as the cache holds the table of one.
        values = torch.gather(table.t().contiguous(), 1, rows)
        parts = values.split([each.length**2 for each in self.segments], dim=1)
        return [
            part.unflatten(1, (each.length, each.length))
            for part, each in zip(parts, self.segments, strict=True)
        ]

    def _append(
        self, windows: int, index: Tensor, blocked: Tensor | None = None
    ) -> None:
        if index.numel():
            start = self.segments[-1].tokens.stop if self.segments else 0
            self.segments.append(Segment(start, windows, len(index), index, blocked))

    def _append_owners(self, index: Tensor, order: Tensor, own: int) -> None:
        """Append the two segments of one window, ordered by owner."""
        index = index[order][:, order]
        self._append(1, index[:own, :own])
        self._append(1, index[own:, own:])


def window_tokens(
    size: tuple[int, int], window: tuple[int, int], shift: bool, device: torch.device
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Cut a map into windows, and group them by their shape.

    Args:
        size: Height and width of the map.
        window: Height and width of a window.
        shift: Whether the first window of each side that holds several is only
            half a window, as in :class:`WindowLayout`.
        device: Where the result lives.

    Returns:
        For each shape the map's token numbers, (windows, tokens of a window), and
        height and width of the windows.
    """
    places = []
    for side, length in zip(size, window, strict=True):
        first = length // 2 if shift and side > length > 1 else length
        cuts = [0, *range(first, side, length), side]
        by_length: dict[int, list[int]] = {}
        for start, stop in zip(cuts, cuts[1:], strict=False):
            by_length.setdefault(stop - start, []).append(start)
        places.append(
            [
                torch.tensor(starts, device=device)[:, None]
                + torch.arange(length, device=device)
                for length, starts in by_length.items()
            ]
        )
    return [
        (
            (rows[:, None, :, None] * size[1] + columns[None, :, None, :])
            .flatten(2)
            .flatten(0, 1),
            (rows.shape[1], columns.shape[1]),
        )
        for rows in places[0]
        for columns in places[1]
    ]


def _shapes_may_vary(device: torch.device) -> bool:
    return device.type == 'cpu' and not torch.compiler.is_compiling()


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
        raise UserError(
            f'{name} has {len(table)} rows, which fit neither the window '
            f'{window[0]}x{window[1]} of this model nor a square one: load it into a '
            'model of the window_size that it was made for.'
        )
    if source != size:
        image = table.float().t().reshape(1, -1, *source)
        image = F.interpolate(image, size=size, mode='bicubic', align_corners=False)
        state_dict[name] = image.flatten(2)[0].t().to(table.dtype)
