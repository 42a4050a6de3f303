"""What formats other than ours share."""

from __future__ import annotations

import math

from torch import Tensor

from mmmixmim.geometry import relative_position_index
from mmmixmim.validation import UserError

from ..names import INDEX, MAP_NORM, TABLE


def without_indices(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the index buffers, which follow from the windows."""
    return {name: value for name, value in entries.items() if not name.endswith(INDEX)}


def with_indices(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the index buffers that other formats save beside bias tables.

    Raises:
        UserError: If a window is not square, or a norm belongs to a dense map.
    """
    complete = {}
    for name, value in entries.items():
        if MAP_NORM.match(name):
            raise UserError(
                f'{name} belongs to a dense map (out_indices), which only the format '
                'mmmixmim has.'
            )
        complete[name] = value
        if name.endswith(TABLE):
            side = (math.isqrt(len(value)) + 1) // 2
            if (2 * side - 1) ** 2 != len(value):
                raise UserError(
                    f'{name} has {len(value)} rows, which is not a square window: only '
                    'the format mmmixmim has others.'
                )
            window = (side, side)
            index = relative_position_index(window, window, value.device)
            complete[name.replace(TABLE, INDEX)] = index
    return complete
