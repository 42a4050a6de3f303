"""What arguments of :class:`MixMIM` go together, and what the backbone decides."""

from __future__ import annotations

import inspect

from mmpretrain.models.heads import SimMIMHead
from torch import nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair


def check_ratios(mask_ratio: float, range_mask_ratio: float) -> None:
    """Raise unless all ratios that can be drawn lie between 0 and 1."""
    ratios = (mask_ratio, range_mask_ratio)
    if not all(isinstance(ratio, (int, float)) for ratio in ratios) or not (
        range_mask_ratio >= 0 and 0 < mask_ratio < 1 - range_mask_ratio
    ):
        raise UserError(
            'mask_ratio, and mask_ratio + range_mask_ratio, must lie between 0 and 1, '
            f'both excluded; got mask_ratio={mask_ratio!r} and '
            f'range_mask_ratio={range_mask_ratio!r}.'
        )


def check_single_image(
    filling: str, num_images: int, isolate: bool | None, reconstruct: str | None
) -> None:
    """Raise for what needs several images where hidden cells show a filling."""
    for option, wrong, why in (
        (f'num_images={num_images}', num_images != 2, 'no images are mixed'),
        ('isolate=True', isolate, 'no token would see the filling'),
        ("reconstruct='all'", reconstruct == 'all', 'there is one image only'),
    ):
        if wrong:
            raise UserError(
                f"{option} needs filling='partner', got filling={filling!r}, where "
                f'{why}: leave {option.split("=")[0]} out.'
            )


def decodes_cells(neck: nn.Module, head: nn.Module, passes: int, isolate: bool) -> bool:
    """Whether decoder and head work cell by cell, with an ownership.

    mmpretrain's ``SimMIMLinearDecoder`` and ``SimMIMHead`` work on the whole map.
    """
    per_cell = len(inspect.signature(neck.forward).parameters) > 1
    if per_cell == isinstance(head, SimMIMHead):
        raise UserError(
            f'{type(neck).__name__} and {type(head).__name__} do not go together: '
            'use MixMIMPretrainDecoder with MixMIMPretrainHead, or SimMIMLinearDecoder '
            'with SimMIMHead.'
        )
    if not per_cell and (passes > 1 or isolate):
        raise UserError(
            f'{type(neck).__name__} predicts a hidden cell from its own token, which '
            'needs filling="mask_token" (or another one), isolate=False and '
            'reconstruct="own".'
        )
    return per_cell


def with_sizes(part: dict | nn.Module | None, default: str, sizes: dict):
    """Complete the config of a neck or head with the sizes of the backbone.

    Args:
        part: The config, or the module, which is returned as it is.
        default: Type of a config that names none.
        sizes: Values by argument name. Those that the type takes are used, if it is
            made for cells, which means that it takes a ``stride``.

    Raises:
        UserError: If the config has another size than the backbone.
    """
    if isinstance(part, nn.Module):
        return part
    part = dict(type=default) | dict(part or {})
    cls = MODELS.get(part['type']) if isinstance(part['type'], str) else part['type']
    if cls is None:  # the registry says so when it builds the part
        return part
    for old, new in getattr(cls.__init__, 'renamed', {}).items():
        if old in part and new not in part:
            part[new] = part.pop(old)
    names = inspect.signature(cls).parameters.keys()
    for name in names & sizes.keys() if 'stride' in names else ():
        size = sizes[name]
        given = part.setdefault(name, size)
        if isinstance(size, tuple):
            given = as_pair(name, given)
        if given != size:
            raise UserError(
                f'{part["type"]} got {name}={part[name]}, but the backbone has {size}: '
                f'leave {name} out, it follows from the backbone.'
            )
    return part
