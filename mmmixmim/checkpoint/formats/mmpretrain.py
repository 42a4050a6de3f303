"""The format of mmpretrain's port of MixMIM."""

from __future__ import annotations

import re

from torch import Tensor

from mmmixmim.validation import UserError

from ._common import with_indices, without_indices

# Our names and theirs. Those that begin with a dot stand inside a name.
NAMES = (
    ('decoder_norm.', 'ln1.'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
MERGING = re.compile(r'\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)$')


def file_key(part: str) -> tuple[str, str]:
    """Key of the state dict in a file, and prefix of a part's names."""
    return 'state_dict', f'{part}.'


def detect(entries: dict[str, Tensor]) -> bool:
    """Whether these are an encoder's or a decoder's entries in this format."""
    encoder = 'patch_embed.projection.weight' in entries
    return encoder or ('ln1.weight' in entries and 'decoder_pred.weight' in entries)


def to_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, reorder patch merging, drop index buffers."""
    native = {}
    for theirs, value in without_indices(entries).items():
        name = _rename(theirs, old=1, new=0)
        if name in native:
            raise UserError(
                f'This checkpoint has {name} twice, by two names; the second is '
                f'{theirs}.'
            )
        native[name] = columns_first(value) if MERGING.search(name) else value
    return native


def from_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename, reorder patch merging, add index buffers."""
    return {
        _rename(name, old=0, new=1): (
            _rows_first(value) if MERGING.search(name) else value
        )
        for name, value in with_indices(entries).items()
    }


def _rename(name: str, old: int, new: int) -> str:
    for pair in NAMES:
        if pair[old].startswith('.'):
            name = name.replace(pair[old], pair[new], 1)
        elif name.startswith(pair[old]):
            name = pair[new] + name.removeprefix(pair[old])
    return name


# Patch merging concatenates four neighbours. mmpretrain keeps the neighbours of each
# channel together, row by row; the authors keep the channels of each neighbour
# together, column by column.


def columns_first(value: Tensor) -> Tensor:
    """Reorder the last axis of a weight of patch merging as the authors and timm."""
    if value.shape[-1] % 4:
        return value
    squares = value.unflatten(-1, (value.shape[-1] // 4, 2, 2))  # channel, row, column
    return squares.transpose(-1, -3).flatten(-3)


def _rows_first(value: Tensor) -> Tensor:
    if value.shape[-1] % 4:
        return value
    squares = value.unflatten(-1, (2, 2, value.shape[-1] // 4))  # column, row, channel
    return squares.transpose(-1, -3).flatten(-3)
