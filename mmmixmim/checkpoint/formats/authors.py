"""The format of the paper's authors.

Encoder and decoder stand side by side without prefixes, by the names that ours follow.
"""

from __future__ import annotations

from torch import Tensor

from . import mmmixmim
from ._common import with_indices, without_indices


def file_key(part: str) -> tuple[str, str]:
    """Key of the state dict in a file, and prefix of a part's names."""
    return 'model', 'head.' if part == 'head' else ''


def detect(entries: dict[str, Tensor]) -> bool:
    """Whether these are an encoder's or a decoder's entries in this format."""
    # Swin transformers have such names too, and buffers that MixMIM has not.
    swin = any(name.endswith(('attn_mask', 'logit_scale')) for name in entries)
    return mmmixmim.detect(entries) and not swin


def to_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the classifier, drop index buffers."""
    renamed = {_HEAD.get(name, name): value for name, value in entries.items()}
    return without_indices(renamed)


def from_native(entries: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the classifier, add index buffers."""
    names = {ours: theirs for theirs, ours in _HEAD.items()}
    return with_indices({names.get(n, n): value for n, value in entries.items()})


_HEAD = {'weight': 'fc.weight', 'bias': 'fc.bias'}
