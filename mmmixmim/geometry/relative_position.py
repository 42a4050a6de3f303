"""Relative positions inside a window, and the table of their biases."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmixmim.validation import UserError


def relative_position_index(
    window: tuple[int, int], table: tuple[int, int], device: torch.device
) -> Tensor:
    """Row of the relative position bias table for each pair of tokens.

    Args:
        window: Height and width of the window.
        table: Height and width of the window that the table is made for, at least as
            large. The rows of the table run over the relative positions from
            (-height + 1, -width + 1) to (height - 1, width - 1).
        device: Device of the index.

    Returns:
        Long tensor (n, n) with n = window height * width: query, key.
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

    The table is an image of relative positions, resized by bicubic interpolation as
    in the authors' code.

    Args:
        state_dict: What is being loaded. Does nothing if ``name`` is not in it.
        name: Key of a table ((2h - 1) * (2w - 1), heads).
        window: Height h and width w of the model's window.
        source: Height and width of the table's window if known. If None, the table
            belongs to the model's window if it has as many rows, else to a square one.

    Raises:
        UserError: If the rows fit neither.
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
            'model with the window_size that it was trained with.'
        )
    if source != size:
        image = table.float().t().reshape(1, -1, *source)
        image = F.interpolate(image, size=size, mode='bicubic', align_corners=False)
        state_dict[name] = image.flatten(2)[0].t().to(table.dtype)
