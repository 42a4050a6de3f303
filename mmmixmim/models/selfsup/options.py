"""What arguments of :class:`MixMIM` go together, and what the backbone decides."""

from __future__ import annotations

import inspect

from mmpretrain.models.heads import SimMIMHead
from torch import nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair

from ..mixing import TokenOwnership


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


def check_hidden(ownership: TokenOwnership) -> None:
    """Raise where cells leave nothing to predict, or nothing to predict it from."""
    hidden = (ownership.owners != 0).flatten(1)
    if ownership.passes == 1 and not hidden.any():
        raise UserError('The mask hides no cell, so there is nothing to predict.')
    if ownership.filling is not None and hidden.all(1).any():
        raise UserError(
            'The mask hides an image whole, so nothing of it is left to predict from.'
        )


def check_options(ownership: TokenOwnership, options: dict) -> None:
    """Raise unless an ownership was made with the options of the model."""
    for name, value in options.items():
        found = getattr(ownership, name)
        if found is not value and found != value:
            raise UserError(
                f'The ownership has {name}={found}, the model {value}: pass the mask, '
                'of which the model makes its own ownership.'
            )


def decodes_cells(neck: nn.Module, head: nn.Module, alone: bool) -> bool:
    """Whether decoder and head work cell by cell, with an ownership.

    mmpretrain's ``SimMIMLinearDecoder`` and ``SimMIMHead`` work on the whole map.

    Args:
        neck: The decoder.
        head: The head.
        alone: Whether no images are mixed, and all tokens see each other.

    Raises:
        UserError: If they do not go together, or need ``alone``.
    """
    per_cell = len(inspect.signature(neck.forward).parameters) > 1
    if per_cell == isinstance(head, SimMIMHead):
        raise UserError(
            f'{type(neck).__name__} and {type(head).__name__} do not go together: '
            'use MixMIMPretrainDecoder with MixMIMPretrainHead, or SimMIMLinearDecoder '
            'with SimMIMHead.'
        )
    if not per_cell and not alone:
        raise UserError(
            f'{type(neck).__name__} predicts a hidden cell from its own token, which '
            'needs a filling="mask_token" (or another one) and isolate=False: leave '
            'isolate and reconstruct out.'
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
