"""The encoder's weights out of any checkpoint that holds them."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor, nn

from mmmixmim.validation import UserError

from .files import read_weights
from .layouts import INDEX, first_names, from_mmpretrain

OURS = 'patch_embed.proj.weight'
MMPRETRAINS = 'patch_embed.projection.weight'
# The authors keep decoder and head beside the encoder's own entries.
BESIDE_ENCODER = ('decoder_', 'mask_token', 'head.')
NORM = re.compile(r'norm\d*\.(weight|bias)$')
DENSE_NORM = re.compile(r'norm\d+\.(weight|bias)$')


def encoder_weights(
    state: dict[str, Tensor], prefix: str | None = None
) -> dict[str, Tensor]:
    """Pick the encoder out of a state dict of any layout, by our names.

    Args:
        state: Weights of an encoder, or of any model that holds one:
            pretraining, classification, detection, segmentation.
        prefix: Where the encoder is, as ``'teacher.backbone.'``. Defaults to
            None, as ``'backbone.'``: the one there, or the only one.

    Returns:
        The encoder's parameters, by the names of ``MixMIMTransformer``.

    Raises:
        ValueError: If there is no encoder, or it is unclear which is meant.
    """
    start, end = _find(state, prefix)
    weights = OrderedDict()
    for name, value in state.items():
        if not name.startswith(start) or name.endswith(INDEX):
            continue
        name = name.removeprefix(start)
        if name.startswith(BESIDE_ENCODER):
            continue
        if end == MMPRETRAINS:
            name, value = from_mmpretrain(name, value)
        weights[name] = value
    weights._metadata = {
        name.removeprefix(start): entry
        for name, entry in (getattr(state, '_metadata', None) or {}).items()
        if name.startswith(start)
    }
    return weights


def load_encoder(
    backbone: nn.Module, path: str | Path, prefix: str | None = None
) -> None:
    """Load a backbone from a checkpoint of any layout, all of it or nothing.

    Position embeddings and bias tables are resized if need be. Only the norms
    of maps of earlier stages may be missing: they keep their values. Those that
    this backbone does not have are left out. A warning lists both, and what else
    the file has.

    Args:
        backbone: A ``MixMIMTransformer``.
        path: Checkpoint file or address; no code in it is run.
        prefix: See :func:`encoder_weights`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no encoder, or one that does not fit.
    """
    state = read_weights(path)
    try:
        weights = encoder_weights(state, prefix)
        own = backbone.state_dict()
        new = [name for name in own if name not in weights]
        unused = [name for name in weights if name not in own]
        for kind, names in (
            ('it lacks', [name for name in new if not DENSE_NORM.match(name)]),
            ('it has the unknown', [name for name in unused if not NORM.match(name)]),
        ):
            if names:
                raise UserError(
                    f'{kind} {first_names(names)}. arch and qkv_bias must be those '
                    'that it was trained with.'
                )
        backbone.load_state_dict(weights, strict=False)
    except ValueError as error:
        raise UserError(
            f'{path} does not fit this {type(backbone).__name__}: {error}'
        ) from error
    for names, what in (
        (new, 'norms of other maps, not in the file, new'),
        (unused, 'norms of other maps, in the file, not used'),
        (_beside(state, prefix), 'only the encoder is loaded, not'),
    ):
        if names:
            print_log(
                f'{path}: {what}: {", ".join(names)}.',
                logger='current',
                level=logging.WARNING,
            )


def pick_encoder(state: dict[str, Tensor]) -> None:
    """Keep the encoder alone of what is loaded into a bare backbone, in place.

    Args:
        state: Weights of any model that holds an encoder; on return the
            encoder's, by our names. A warning says what else there was.
    """
    encoder = encoder_weights(state)
    others = _beside(state, None)
    if others:
        print_log(
            f'Only the encoder is loaded, not: {", ".join(others)}.',
            logger='current',
            level=logging.WARNING,
        )
    # PyTorch looks the sides of windows up by the names that it loads.
    metadata = getattr(state, '_metadata', None)
    if metadata is not None:
        metadata.update(encoder._metadata)
    state.clear()
    state.update(encoder)


def rename_entries(state: dict[str, Tensor], prefix: str, entry: str) -> None:
    """Rename mmpretrain's entries below ``prefix`` to ours, in place.

    Args:
        state: What is being loaded.
        prefix: Where the part is.
        entry: A name that mmpretrain's part has and ours has not; without it
            nothing happens.
    """
    if f'{prefix}{entry}' not in state:
        return
    for name in [name for name in state if name.startswith(prefix)]:
        value = state.pop(name)
        name, value = from_mmpretrain(name.removeprefix(prefix), value)
        state[prefix + name] = value


def has_encoder(state: dict[str, Tensor]) -> bool:
    """Whether a state dict of any layout holds an encoder."""
    return bool(_encoders(state))


def _encoders(state: dict[str, Tensor]) -> dict[str, str]:
    """Where encoders start, and the names of their patch embeddings there."""
    return {
        name.removesuffix(end): end
        for name in state
        for end in (OURS, MMPRETRAINS)
        if name == end or name.endswith(f'.{end}')
    }


def _beside(state: dict[str, Tensor], prefix: str | None) -> list[str]:
    """Names of what is not the encoder's."""
    start, _ = _find(state, prefix)
    return [
        name
        for name in state
        if not name.startswith(start)
        or name.removeprefix(start).startswith(BESIDE_ENCODER)
    ]


def _find(state: dict[str, Tensor], prefix: str | None) -> tuple[str, str]:
    """Where the encoder starts, and the name of its patch embedding there."""
    found = _encoders(state)
    wanted = 'backbone.' if prefix is None else prefix
    if wanted and not wanted.endswith('.'):
        wanted += '.'
    if wanted == 'backbone.' and wanted not in found and len(found) == 1:
        (wanted,) = found
    if wanted in found:
        return wanted, found[wanted]
    if found:
        raise UserError(
            f'it holds encoders at {", ".join(map(repr, found))}, not at {wanted!r}: '
            'set prefix to the one that is meant.'
        )
    raise UserError(
        f'it holds no MixMIM encoder, which would have {OURS} or {MMPRETRAINS}. Its '
        f'first entry is {next(iter(state), "nothing")}.'
    )
