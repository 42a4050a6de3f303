"""Checkpoint formats: how a project names and orders the parameters of a MixMIM model.

Every file in this folder whose name has no leading underscore is a format, named by the
file, with four functions. Three work on *entries*: the state dict of one part of a
model (encoder, decoder or classifier) with the part's prefix removed.

- ``detect(entries) -> bool``: whether an encoder's or a decoder's entries are named by
  this format.
- ``to_native(entries) -> dict``: the same parameters by the names and in the order of
  ``MixMIMTransformer``, ``MixMIMPretrainDecoder`` or ``LinearClsHead``.
- ``from_native(entries) -> dict``: the reverse.
- ``file_key(part) -> (key, prefix)``: where a file holds a part ('backbone', 'neck' or
  'head'): the key of the state dict, and the prefix of the part's names in it. Parts
  may share a prefix.

Names are translated bit by bit: values may be reordered, never changed.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from torch import Tensor

from mmmixmim.validation import UserError

__all__ = [
    'FILE_KEYS',
    'FORMATS',
    'NATIVE',
    'PARTS',
    'StateDict',
    'detect_entries',
    'detect_format',
    'entries_below',
    'from_native',
    'to_native',
]

StateDict = dict[str, Tensor]

NATIVE = 'mmmixmim'
PARTS = ('backbone', 'neck', 'head')
# Native names that belong to the decoder, where a format keeps it beside the encoder.
DECODER = ('decoder_', 'mask_token')

_names = [each.name for each in pkgutil.iter_modules(__path__) if each.name[0] != '_']
# Ours first: entries that two formats name alike are taken as they are.
FORMATS: dict[str, ModuleType] = {
    name: importlib.import_module(f'{__name__}.{name}')
    for name in sorted(_names, key=lambda name: (name != NATIVE, name))
}

# Keys of the state dict in files, ours first.
FILE_KEYS = tuple(
    dict.fromkeys(each.file_key('backbone')[0] for each in FORMATS.values())
)


def detect_format(state: StateDict) -> str:
    """Tell the format of a whole model.

    Args:
        state: Its parameters by name.

    Returns:
        A key of :data:`FORMATS`.

    Raises:
        UserError: If it is none of them.
    """
    for name, each in FORMATS.items():
        _, prefix = each.file_key('backbone')
        if each.detect(entries_below(prefix, state)):
            return name
    raise UserError(
        'This is not a MixMIM checkpoint in one of the formats '
        f'{", ".join(FORMATS)}. Its first entry is {next(iter(state), "nothing")}.'
    )


def detect_entries(entries: StateDict) -> str | None:
    """Tell the format of one part's entries, None if it is unknown."""
    return next((name for name, each in FORMATS.items() if each.detect(entries)), None)


def to_native(state: StateDict, source: str) -> StateDict:
    """Translate a whole model to our format.

    Args:
        state: Its parameters by name. Some may be missing or unknown.
        source: Its format.

    Returns:
        The parameters by our names, below ``backbone.``, ``neck.`` and ``head.``.

    Raises:
        UserError: If two entries translate to the same name.
    """
    native = {}
    parts_of = _parts_by_prefix(source)
    for prefix, parts in parts_of.items():
        longer = tuple(p for p in parts_of if p != prefix and p.startswith(prefix))
        own = {n: v for n, v in state.items() if not n.startswith(longer)}
        translated = FORMATS[source].to_native(entries_below(prefix, own))
        for name, value in translated.items():
            part = 'neck' if 'neck' in parts and name.startswith(DECODER) else parts[0]
            native[f'{part}.{name}'] = value
    prefixes = tuple(parts_of)
    return native | {n: v for n, v in state.items() if not n.startswith(prefixes)}


def from_native(state: StateDict, target: str) -> StateDict:
    """Translate a whole model from our format, see :func:`to_native`."""
    translated = {}
    for prefix, parts in _parts_by_prefix(target).items():
        entries = {}
        for part in parts:
            entries |= entries_below(f'{part}.', state)
        entries = FORMATS[target].from_native(entries)
        translated |= {prefix + name: value for name, value in entries.items()}
    return translated


def _parts_by_prefix(name: str) -> dict[str, list[str]]:
    """The prefixes of a format, and which parts each of them holds."""
    prefixes: dict[str, list[str]] = {}
    for part in PARTS:
        _, prefix = FORMATS[name].file_key(part)
        prefixes.setdefault(prefix, []).append(part)
    return prefixes


def entries_below(prefix: str, state: StateDict) -> StateDict:
    """Entries whose names start with ``prefix``, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
