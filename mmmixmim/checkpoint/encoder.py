"""Find the encoder in any checkpoint that holds one."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from mmmixmim.validation import UserError

from .formats import DECODER, FORMATS, StateDict, detect_entries, entries_below
from .names import TABLE

ENCODER = 'patch_embed.proj.weight'
# Native names that every ``MixMIMTransformer`` has.
NATIVE_ENCODER = (
    'absolute_pos_embed',
    ENCODER,
    f'layers.0.blocks.0.attn.{TABLE}',
)
# The authors keep decoder and classifier next to the encoder's own entries.
_OTHER_PARTS = (*DECODER, 'head.')


def split_encoder(
    state: StateDict, prefix: str | None = None
) -> tuple[StateDict, list[str]]:
    """Extract the encoder from a state dict of any format.

    Args:
        state: Weights of an encoder, or of any model that holds one: pretraining,
            classification, detection, segmentation.
        prefix: Prefix of the encoder, as ``'teacher.backbone.'``. Defaults to None:
            ``'backbone.'``, or the only encoder.

    Returns:
        The encoder's parameters, by the names of ``MixMIMTransformer``, and the names
        of all other entries.

    Raises:
        UserError: If there is no encoder, or several and none at ``prefix``.
    """
    start = _find(state, prefix)
    entries = entries_below(start, state)
    native = FORMATS[detect_entries(entries)].to_native(entries)
    weights = OrderedDict(
        (name, value)
        for name, value in native.items()
        if not name.startswith(_OTHER_PARTS)
    )
    # PyTorch's metadata holds the sides of our windows.
    weights._metadata = {
        name.removeprefix(start): entry
        for name, entry in (getattr(state, '_metadata', None) or {}).items()
        if name.startswith(start)
    }
    others = [
        name
        for name in state
        if not name.startswith(start)
        or name.removeprefix(start).startswith(_OTHER_PARTS)
    ]
    return weights, others


def is_native(names: Iterable[str]) -> bool:
    """Whether an encoder with these names is a ``MixMIMTransformer``.

    Only its weights come in several formats. Any other encoder has the names of its
    stock class.
    """
    return set(NATIVE_ENCODER) <= set(names)


def stock_weights(
    state: StateDict, first: str, prefix: str | None = None
) -> tuple[StateDict, list[str]]:
    """Extract an encoder by the names of its class from a state dict.

    Args:
        state: Weights of the encoder, or of any model that holds one.
        first: Name of a parameter that the encoder has.
        prefix: See :func:`split_encoder`.

    Returns:
        The encoder's entries without the prefix, and the names of all others.

    Raises:
        UserError: If there is no such encoder, or several and none at ``prefix``.
    """
    found = [
        name.removesuffix(first) for name in state if f'.{name}'.endswith(f'.{first}')
    ]
    if not found:
        raise UserError(
            f'it has no {first}. Its first entry is {next(iter(state), "nothing")}.'
        )
    start = _choose(found, prefix)
    others = [name for name in state if not name.startswith(start)]
    return entries_below(start, state), others


def find_encoders(state: StateDict) -> list[str]:
    """Prefixes of all encoders in a state dict, in any format."""
    below: dict[str, StateDict] = defaultdict(dict)
    for name, value in state.items():
        parts = name.split('.')
        for depth in range(len(parts)):
            prefix = ''.join(f'{part}.' for part in parts[:depth])
            below[prefix][name.removeprefix(prefix)] = value
    for each in FORMATS.values():  # whose prefix need not end in a dot
        _, prefix = each.file_key('backbone')
        below[prefix] = entries_below(prefix, state)
    return [prefix for prefix, entries in below.items() if _is_encoder(entries)]


def _is_encoder(entries: StateDict) -> bool:
    name = detect_entries(entries)
    return name is not None and ENCODER in FORMATS[name].to_native(entries)


def _find(state: StateDict, prefix: str | None) -> str:
    """Prefix of the encoder that ``prefix`` means."""
    found = find_encoders(state)
    if not found:
        raise UserError(
            f'it holds no MixMIM encoder in one of the formats {", ".join(FORMATS)}. '
            f'Its first entry is {next(iter(state), "nothing")}.'
        )
    return _choose(found, prefix)


def _choose(found: list[str], prefix: str | None) -> str:
    """Which of the prefixes of encoders ``prefix`` means."""
    wanted = 'backbone.' if prefix is None else prefix
    if wanted and not wanted.endswith('.'):
        wanted += '.'
    if wanted == 'backbone.' and wanted not in found and len(found) == 1:
        return found[0]
    if wanted in found:
        return wanted
    raise UserError(
        f'it holds encoders at {", ".join(map(repr, found))}, not at {wanted!r}: '
        'set prefix to the one that is meant.'
    )
