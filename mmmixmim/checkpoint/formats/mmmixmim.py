"""Our own format: the authors' names, below ``backbone.``, ``neck.`` and ``head.``."""

from __future__ import annotations

from torch import Tensor

from ._common import without_indices


def file_key(part: str) -> tuple[str, str]:
    """Key of the state dict in a file, and prefix of a part's names."""
    return 'state_dict', f'{part}.'


def detect(entries: dict[str, Tensor]) -> bool:
    """Whether these are an encoder's or a decoder's entries in this format."""
    return 'patch_embed.proj.weight' in entries or 'decoder_norm.weight' in entries


def to_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries, without index buffers."""
    return without_indices(entries)


def from_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries."""
    return dict(entries)
