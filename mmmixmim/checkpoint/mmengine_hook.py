"""Let MMEngine load checkpoints whose encoder does not stand below ``backbone.``.

MMEngine hands each part of a model only the entries below the part's name. In the
authors' files the encoder's names have no prefix. So such names are translated before
MMEngine sees them: for ``load_from``, ``load_checkpoint``, and ``init_cfg`` of type
Pretrained anywhere in a model. Other checkpoints stay as they are.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict

from mmengine.logging import print_log
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    load_from_http,
    load_from_local,
)
from torch import Tensor
from torch.serialization import safe_globals

from .encoder import NATIVE_ENCODER, find_encoders
from .files import unwrap
from .formats import FILE_KEYS, FORMATS, StateDict, entries_below, to_native

# Options of the authors' training, which their files hold next to the weights.
AUTHORS_GLOBALS = [argparse.Namespace]


def register_loaders() -> None:
    """Replace MMEngine's loaders of local files and http addresses; idempotent."""
    CheckpointLoader.register_scheme(prefixes='', loader=_load_local, force=True)
    addresses = ('http://', 'https://')
    CheckpointLoader.register_scheme(prefixes=addresses, loader=_load_http, force=True)


def translate_checkpoint(checkpoint: dict) -> dict:
    """Translate a checkpoint to our format if MMEngine could not route its entries.

    Args:
        checkpoint: Content of any checkpoint file.

    Returns:
        The weights under ``state_dict`` by our names; or ``checkpoint`` itself if it
        needs no translation. MMEngine reports missing and unexpected keys.
    """
    if not isinstance(checkpoint, dict):
        return checkpoint
    keys = [key for key in FILE_KEYS if key in checkpoint]
    weights = checkpoint[keys[0]] if keys else checkpoint
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        return checkpoint
    weights = unwrap(weights)
    extras = {k: v for k, v in checkpoint.items() if k not in keys} if keys else {}
    for prefix in find_encoders(weights):
        source, root = _unroutable_format(weights, prefix)
        if source is None:
            continue
        native = to_native(entries_below(root, weights), source)
        translated = OrderedDict((root + name, native[name]) for name in native)
        translated |= {n: v for n, v in weights.items() if not n.startswith(root)}
        print_log(f'Translated from the format {source}.', logger='current')
        return extras | dict(state_dict=translated)
    return checkpoint


def _load_local(filename: str, map_location=None) -> dict:
    with safe_globals(AUTHORS_GLOBALS):
        return translate_checkpoint(load_from_local(filename, map_location))


def _load_http(filename: str, map_location=None, **kwargs) -> dict:
    with safe_globals(AUTHORS_GLOBALS):
        return translate_checkpoint(load_from_http(filename, map_location, **kwargs))


def _unroutable_format(state: StateDict, prefix: str) -> tuple[str | None, str]:
    """The format of a whole model whose encoder does not stand below ``backbone.``.

    Args:
        state: All weights.
        prefix: Prefix of an encoder in them.

    Returns:
        The format, None if there is no such model; and the prefix of the model.
    """
    for name, each in FORMATS.items():
        _, start = each.file_key('backbone')
        root = prefix.removesuffix(start)
        if start == 'backbone.' or not prefix.endswith(start):
            continue
        if not each.detect(entries_below(prefix, state)):
            continue
        native = to_native(entries_below(root, state), name)
        if not all(f'backbone.{entry}' in native for entry in NATIVE_ENCODER):
            continue
        # Our own encoder below a prefix may have such names too. It has neither decoder
        # nor classifier next to them.
        if not root or native.keys() & {'neck.mask_token', 'head.fc.weight'}:
            return name, root
    return None, ''
