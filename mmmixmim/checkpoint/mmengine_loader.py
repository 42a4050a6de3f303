"""Let MMEngine load the authors' checkpoints into any model with our encoder.

MMEngine hands the parts of a model only the entries below their own names, and the
authors' files have no ``backbone.`` before the encoder's. So what MMEngine reads is
translated before it is handed out: for ``load_from``, ``load_checkpoint`` and an
``init_cfg`` of the type Pretrained anywhere in a model. Other checkpoints stay as
they are.
"""

from __future__ import annotations

import argparse

from mmengine.logging import print_log
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    load_from_http,
    load_from_local,
)
from torch import Tensor
from torch.serialization import safe_globals

from .layouts import convert_state_dict

# Options of the authors' training, which their files hold beside the weights.
AUTHORS_GLOBALS = [argparse.Namespace]


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
        With our names in ``state_dict`` if the weights are a whole model of the
        authors' code; else the very same object.
    """
    if not isinstance(checkpoint, dict):
        return checkpoint
    weights = checkpoint.get('model', checkpoint)
    if not isinstance(weights, dict) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        return checkpoint
    if 'absolute_pos_embed' not in weights:
        return checkpoint
    try:
        weights = convert_state_dict(weights, 'mmmixmim')
    except ValueError:  # another model's, as a Swin transformer's
        return checkpoint
    print_log("Translated from the layout of MixMIM's authors.", logger='current')
    beside = {} if checkpoint.get('model') is None else dict(checkpoint)
    beside.pop('model', None)
    return beside | dict(state_dict=weights)
