"""How the tokens of a map are arranged for window attention."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mmmixmim import ops
from mmmixmim.geometry import relative_position_index

from ..mixing import TokenOwnership


@dataclass
class Segment:
    """Windows of n tokens each.

    Without a mask, window stands after window. With one, the first tokens of all
    windows come first, then the second ones. On a GPU windows and heads are then one
    dimension without a copy (:func:`mmmixmim.ops.window_attention`).

    Attributes:
        start: Place of the first token.
        windows: Number of windows.
        index: Row of the bias table for each query and key of a window, (n, n).
        blocked: Bool (1 or B, windows, 1, n, n), True where a query must not see a
            key. None where all tokens of a window see each other.
    """

    start: int
    windows: int
    index: Tensor
    blocked: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens n of a window."""
        return self.index.shape[0]

    @property
    def tokens(self) -> slice:
        """Places of the segment's tokens."""
        return slice(self.start, self.start + self.windows * self.length)


class WindowLayout:
    """Order of a map's tokens by windows of equal size.

    A stage makes one layout, arranges its map once, runs all blocks, and restores the
    map: everything else in a block works token by token. There is no padding. Windows
    that stick out of the map have fewer tokens.

    Tokens of different owners must not see each other. The plain way is a mask per
    window. The fast way orders the tokens of a window by owner and lets each owner
    attend by itself, without a mask and with half the work. It takes a grid that the
    batch shares. With several windows the sizes then depend on the grid, so GPUs and
    compilers, which need static shapes, get masks.

    Args:
        size: Height and width of the map in tokens.
        window: Height and width of the window that the bias table is made for. A
            smaller map uses the matching part of the table.
        ownership: Who owns each token. None if all tokens see each other.
        device: Device of the tokens.
        shift: Whether windows lie half a window further up and left, along sides that
            hold several. Defaults to False.

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
        single_window = sum(len(tokens) for tokens, _ in groups) == 1
        order = []
        for tokens, sides in groups:  # tokens: (windows, n)
            index = relative_position_index(sides, window, device)
            if ownership is None or not ownership.isolated:
                self._append(len(tokens), index)
            elif _can_split_owners(ownership, single_window, index):
                tokens = self._append_by_owner(tokens, index, ownership, single_window)
            else:
                owners = ownership.at(*size).flatten(1)[:, tokens]
                blocked = ~ownership.same_owner(owners)
                self._append(len(tokens), index, blocked.unsqueeze(2))
                tokens = tokens.t()
            order.append(tokens.flatten())
        self.order = self.inverse = None
        if not single_window or (ownership is not None and ownership.isolated):
            self.order = torch.cat(order)
            self.inverse = self.order.argsort()
        self._rows = torch.cat([each.index.flatten() for each in self.segments])

    @property
    def spans(self) -> list[tuple[slice, int]]:
        """Places of each segment's tokens, and its number of windows."""
        return [(each.tokens, each.windows) for each in self.segments]

    @property
    def masks(self) -> list[Tensor | None]:
        """What each segment blocks."""
        return [each.blocked for each in self.segments]

    @property
    def masked(self) -> bool:
        """Whether any segment blocks something."""
        return any(mask is not None for mask in self.masks)

    def arrange(self, maps: Tensor) -> Tensor:
        """Put a map's tokens in order.

        Args:
            maps: (B, H, W, C).

        Returns:
            (B, H * W, C).
        """
        tokens = maps.flatten(1, 2)
        if self.order is None:
            return tokens
        return ops.permute(tokens, self.order, self.inverse)

    def restore(self, tokens: Tensor) -> Tensor:
        """Undo :meth:`arrange`.

        Args:
            tokens: (B, H * W, C).

        Returns:
            (B, H, W, C).
        """
        if self.order is not None:
            tokens = ops.permute(tokens, self.inverse, self.order)
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
        # Head by head, since the table of one head fits the cache.
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
            self.segments.append(Segment(start, windows, index, blocked))

    def _append_by_owner(
        self,
        tokens: Tensor,
        index: Tensor,
        ownership: TokenOwnership,
        single_window: bool,
    ) -> Tensor:
        """Append a segment for each owner of each window.

        Args:
            tokens: Token numbers of each window, (windows, n).
            index: See :class:`Segment`.
            ownership: A grid that the batch shares.
            single_window: Whether this window covers the map.

        Returns:
            ``tokens``, in each window ordered by owner.
        """
        if single_window:  # its sizes are static
            ranks, counts = ownership.order(*self.size)
            ranks, counts = ranks.unsqueeze(0), [counts]
        else:
            owners = ownership.at(*self.size).flatten()[tokens].long()  # (windows, n)
            ranks = owners.argsort(stable=True)
            each = torch.arange(ownership.images, device=owners.device)
            counts = (owners.unsqueeze(2) == each).sum(1).tolist()
        for rank, sizes in zip(ranks, counts, strict=True):
            ordered = index[rank][:, rank]
            start = 0
            for size in sizes:
                stop = start + size
                self._append(1, ordered[start:stop, start:stop])
                start = stop
        return tokens.gather(1, ranks)


def window_tokens(
    size: tuple[int, int], window: tuple[int, int], shift: bool, device: torch.device
) -> list[tuple[Tensor, tuple[int, int]]]:
    """Cut a map into windows, and group them by their shape.

    Args:
        size: Height and width of the map.
        window: Height and width of a window.
        shift: Whether the first window along each side that holds several is only half
            a window, as in :class:`WindowLayout`.
        device: Device of the result.

    Returns:
        For each shape the map's token numbers, (windows, n), and height and width of
        the windows.
    """
    starts_by_length = []  # for rows, then for columns
    for side, length in zip(size, window, strict=True):
        first = length // 2 if shift and side > length > 1 else length
        cuts = [0, *range(first, side, length), side]
        by_length: dict[int, list[int]] = {}
        # PyTorch 2.6 compiles zip() with strict=False as if it were True.
        for start, stop in pairwise(cuts):
            by_length.setdefault(stop - start, []).append(start)
        starts_by_length.append(by_length)

    def places(starts: list[int], length: int) -> Tensor:
        # Starts are evenly spaced. A copy of the list would wait for a GPU.
        step = starts[1] - starts[0] if len(starts) > 1 else 1
        starts = torch.arange(starts[0], starts[-1] + 1, step, device=device)
        return starts[:, None] + torch.arange(length, device=device)

    groups = []
    for height, tops in starts_by_length[0].items():
        for width, lefts in starts_by_length[1].items():
            rows = places(tops, height)  # (windows down, height)
            columns = places(lefts, width)  # (windows across, width)
            tokens = rows[:, None, :, None] * size[1] + columns[None, :, None, :]
            groups.append((tokens.flatten(2).flatten(0, 1), (height, width)))
    return groups


def _can_split_owners(
    ownership: TokenOwnership, single_window: bool, index: Tensor
) -> bool:
    """Whether each owner's tokens can attend by themselves."""
    dynamic_shapes = ops.runs_on_cpu(index) and not torch.compiler.is_compiling()
    return ownership.shared and (single_window or dynamic_shapes) and not ops.is_plain()
