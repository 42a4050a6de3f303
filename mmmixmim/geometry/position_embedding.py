"""Fixed two-dimensional sin-cos position embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmixmim.validation import UserError


def sincos_position_embedding(grid: tuple[int, int], dim: int) -> Tensor:
    """Sin-cos codes of the column and the row of every token.

    The first half of the channels codes the column, the second half the row. Each
    half holds the sines, then the cosines of ``dim / 4`` wavelengths from 2 pi to
    10000 * 2 pi. Computed in float64, as in MAE's code, which the authors use.

    Args:
        grid: Height and width of the map.
        dim: Number of channels, divisible by 4.

    Returns:
        Float tensor (1, height * width, dim), row-major.
    """
    if dim % 4:
        raise UserError(
            f'A 2-D sin-cos embedding needs channels divisible by 4, got {dim}.'
        )
    frequency = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    rows, columns = torch.meshgrid(
        *(torch.arange(size, dtype=torch.float64) for size in grid), indexing='ij'
    )
    angles = [axis.reshape(-1, 1) * frequency for axis in (columns, rows)]
    codes = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.cat(codes, dim=1).float().unsqueeze(0)


def resize_position_embedding(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """Resize a position embedding to another map by bicubic interpolation.

    Args:
        embedding: (1, source height * source width, C), row-major.
        source: Height and width of the map it was made for.
        target: Height and width of the wanted map.

    Returns:
        (1, target height * target width, C). ``embedding`` itself if the sizes agree.
    """
    if source == target:
        return embedding
    maps = embedding.unflatten(1, source).permute(0, 3, 1, 2)
    maps = F.interpolate(maps.float(), size=target, mode='bicubic', align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(embedding.dtype)


def load_position_embedding(
    state_dict: dict[str, Tensor], name: str, size: tuple[int, int]
) -> None:
    """Resize a position embedding in a state dict to the model's map, in place.

    Args:
        state_dict: What is being loaded. Does nothing if ``name`` is not in it.
        name: Key of a sin-cos embedding (1, height * width, C) of any map.
        size: Height and width of the model's map.
    """
    embedding = state_dict.get(name)
    if embedding is None:
        return
    source = _map_of(embedding, size)
    if source is None:
        raise UserError(
            f'{name} has {embedding.shape[1]} positions of an unknown map, neither the '
            f'{size[0]}x{size[1]} of this model nor a square: load it into a model '
            'with the img_size that it was trained with.'
        )
    state_dict[name] = resize_position_embedding(embedding, source, size)


def _map_of(embedding: Tensor, size: tuple[int, int]) -> tuple[int, int] | None:
    """Height and width of an embedding's map, None if nothing tells.

    One half of the channels of a sin-cos embedding codes the column, so it repeats
    after one row: the first half in the authors' code, the second in mmpretrain's
    port. Any other embedding belongs to a map of ``size``, or to a square map.
    """
    positions = embedding.shape[1]
    halves = []
    for half in embedding[0].float().chunk(2, dim=-1):
        same = torch.isclose(half, half[:1], atol=1e-4).all(1).nonzero().flatten()
        halves.append(same)
        width = int(same[1]) if len(same) > 1 else 0
        if width > 1 and positions % width == 0:
            return positions // width, width
    columns, rows = (len(same) for same in halves)
    if rows == positions != columns:
        return 1, positions
    if columns == positions != rows:  # a single column
        return positions // rows, rows
    if positions == math.prod(size):
        return size
    side = math.isqrt(positions)
    return (side, side) if side**2 == positions else None
