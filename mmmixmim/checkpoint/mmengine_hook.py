"""Let MMEngine load checkpoints whose encoder does not stand below ``backbone.``.

MMEngine hands each part of a model only the entries below the part's name. In the
authors' files the encoder's names have no prefix. So such names are translated before
MMEngine sees them: for ``load_from``, ``load_checkpoint``, and ``init_cfg`` of type
Pretrained anywhere in a model. Other checkpoints stay as they are.

MMEngine's own loaders run code in a file: the one for local files after a warning, the
one for http addresses without. These here run none. MMEngine also executes the text of
a config that a checkpoint holds, when it resumes and when an inferencer gets no config;
so that text moves to ``meta.config_text``, which MMEngine does not execute.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch import Tensor

from mmmixmim.validation import UserError, is_trusted

from .encoder import NATIVE_ENCODER, find_encoders
from .files import download, read_file, unwrap
from .formats import FILE_KEYS, FORMATS, StateDict, entries_below, to_native
from .plain import restore_histories


def register_loaders() -> None:
    """Replace all of MMEngine's loaders of checkpoints; idempotent."""
    for prefixes, loader in (
        ('', load_from_local),
        (('http://', 'https://'), load_from_http),
        ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph),
        (('modelzoo://', 'torchvision://'), load_from_torchvision),
        (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
        ('mmcls://', load_from_mmcls),
        ('pavi://', load_from_pavi),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


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


# MMEngine logs the names of these functions without "load_from_".


def load_from_local(filename: str, map_location=None) -> dict:
    """Load a local file."""
    content = read_file(filename, map_location)
    restore_histories(content)
    if not is_trusted(filename):
        _disarm_text(content)
    return translate_checkpoint(content)


def load_from_http(filename: str, map_location=None) -> dict:
    """Load a file from an address; the main process fetches it for all."""
    if is_main_process():
        download(filename)
    barrier()
    return load_from_ceph(filename, map_location)


def load_from_ceph(filename: str, map_location=None) -> dict:
    """Load a file that one of MMEngine's file backends fetches."""
    content = read_file(filename, map_location)
    restore_histories(content)
    _disarm_text(content)
    return translate_checkpoint(content)


def load_from_torchvision(filename: str, map_location=None) -> dict:
    """Load a model of torchvision by its name."""
    name = filename.split('://', 1)[1]
    return load_from_http(_find(filename, name, get_torchvision_models()), map_location)


def load_from_openmmlab(filename: str, map_location=None) -> dict:
    """Load a model of OpenMMLab by its name."""
    name = filename.split('://', 1)[1]
    name = get_deprecated_model_names().get(name, name)
    return _load_named(_find(filename, name, get_external_models()), map_location)


def load_from_mmcls(filename: str, map_location=None) -> dict:
    """Load the backbone of a model of MMClassification by its name."""
    url = _find(filename, filename.split('://', 1)[1], get_mmcls_models())
    content = load_from_http(url, map_location)
    weights = content.get('state_dict', content)
    return dict(state_dict=OrderedDict(entries_below('backbone.', weights)))


def load_from_pavi(filename: str, map_location=None) -> dict:
    """Refuse pavi, which fetches and reads files by itself."""
    raise UserError(f'{filename}: pavi:// is not supported. Download the file first.')


def _find(filename: str, name: str, addresses: dict[str, str]) -> str:
    if name not in addresses:
        raise UserError(f'{filename}: MMEngine knows no model of this name.')
    return addresses[name]


def _load_named(address: str, map_location) -> dict:
    if address.startswith(('http://', 'https://')):
        return load_from_http(address, map_location)
    # A file that the user put into MMEngine's folder.
    folder = os.getenv('MMENGINE_HOME') or os.path.join(
        os.getenv('XDG_CACHE_HOME', '~/.cache'), 'mmengine'
    )
    return load_from_local(os.path.join(folder, address), map_location)


def _disarm_text(checkpoint: object) -> None:
    """Move the text of configs to where MMEngine does not execute it, in place."""
    if not isinstance(checkpoint, dict):
        return
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    texts = [
        entries.pop(name)
        for entries in (meta, info)
        if isinstance(entries, dict)
        for name in ('cfg', 'config')
        if name in entries
    ]
    if texts and isinstance(meta, dict):
        meta['config_text'] = texts[0]


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
