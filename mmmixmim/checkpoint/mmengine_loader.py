"""Let MMEngine load the authors' checkpoints into any model with our encoder.

MMEngine hands the parts of a model only the entries below their own names, and the
authors' files have no ``backbone.`` before the encoder's. So what MMEngine reads is
translated before it is handed out: for ``load_from``, ``load_checkpoint`` and an
``init_cfg`` of the type Pretrained anywhere in a model. Other checkpoints stay as
they are.
"""

from __future__ import annotations

import argparse
import logging
from collections import OrderedDict

from mmengine.logging import print_log
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    load_from_http,
    load_from_local,
)
from torch import Tensor
from torch.serialization import safe_globals

from .encoder import OURS
from .files import unwrap
from .layouts import convert_state_dict, rename_authors

# Options of the authors' training, which their files hold beside the weights.
AUTHORS_GLOBALS = [argparse.Namespace]
WHOLE = ('mask_token', 'head.weight')


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local_any_layout(filename: str, map_location=None) -> dict:
    """MMEngine's loader of local files, then :func:`translate_authors`."""
    with safe_globals(AUTHORS_GLOBALS):
        return translate_authors(load_from_local(filename, map_location))


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http_any_layout(filename: str, map_location=None, **kwargs) -> dict:
    """MMEngine's loader of addresses, then :func:`translate_authors`."""
    with safe_globals(AUTHORS_GLOBALS):
        return translate_authors(load_from_http(filename, map_location, **kwargs))


def translate_authors(checkpoint: dict) -> dict:
    """Translate a checkpoint of the authors' code to our layout.

    Args:
        checkpoint: Content of any checkpoint file.

    Returns:
        With our names in ``state_dict`` if the weights are those of the
        authors' model; else the very same object. What lacks or is unknown is
        left for MMEngine to list, after a warning.
    """
    if not isinstance(checkpoint, dict):
        return checkpoint
    keys = [key for key in ('state_dict', 'model') if key in checkpoint]
    weights = checkpoint[keys[0]] if keys else checkpoint
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        return checkpoint
    weights = unwrap(weights)
    beside = {k: v for k, v in checkpoint.items() if k not in keys} if keys else {}
    start = _find_authors(weights)
    if start is None:
        return checkpoint
    theirs = _below(start, weights)
    if len(theirs) < len(weights):
        ours = rename_authors(theirs)
    else:
        try:
            ours = convert_state_dict(theirs, 'mmmixmim')
        except ValueError as error:
            print_log(str(error), logger='current', level=logging.WARNING)
            ours = rename_authors(theirs)
    translated = OrderedDict((f'{start}{name}', ours[name]) for name in ours)
    translated |= {n: v for n, v in weights.items() if not n.startswith(start)}
    print_log("Translated from the layout of MixMIM's authors.", logger='current')
    return beside | dict(state_dict=translated)


def _find_authors(weights: dict[str, Tensor]) -> str | None:
    """What stands before the authors' names; None where there are none."""
    for name in weights:
        start = name.removesuffix(OURS)
        if name == start or start and not start.endswith('.'):
            continue
        part = _below(start, weights)
        # Our own encoder below a prefix has the authors' names too, but neither
        # decoder nor head beside them.
        if _is_authors(part) and (not start or any(each in part for each in WHOLE)):
            return start
    return None


def _below(start: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(start): v for n, v in weights.items() if n.startswith(start)}


def _is_authors(weights: dict[str, Tensor]) -> bool:
    """Whether names are those of the authors' encoder, and not a Swin transformer's."""
    return all(
        name in weights
        for name in (
            'absolute_pos_embed',
            OURS,
            'layers.0.blocks.0.attn.relative_position_bias_table',
        )
    ) and not any(name.endswith(('attn_mask', 'logit_scale')) for name in weights)
