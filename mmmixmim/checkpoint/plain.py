"""Checkpoints that hold nothing but plain values, log histories included.

``torch.load(weights_only=True)`` reads such files without a list of safe names.
"""

from __future__ import annotations

from collections import OrderedDict
from numbers import Number
from pathlib import PurePath

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from .stand_ins import make_history

# What the weights-only unpickler knows, next to containers.
_PLAIN = (Tensor, str, bytes, bytearray, Number, type(None), torch.dtype, torch.device)
_HISTORY = {'log_history', 'count_history', 'max_length'}


def to_plain(value: object, name: str = '', unknown: list[str] | None = None) -> object:
    """Turn log histories, NumPy values and paths into plain values.

    Args:
        value: Content of a checkpoint. It is not changed.
        name: Its name in the checkpoint, as 'message_hub.runtime_info'.
        unknown: List to which the names of objects are added that are no plain values.

    Returns:
        The same content: a log history is a dict of two tensors and a length, an array
        is a list, a path is a str. Tensors and unknown objects are the same objects.
    """
    if isinstance(value, HistoryBuffer):
        values, counts = (torch.from_numpy(np.array(each)) for each in value.data)
        return dict(
            log_history=values, count_history=counts, max_length=value.max_length
        )
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.tolist()
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, dict):
        plain = {
            key: to_plain(each, f'{name}.{key}'.lstrip('.'), unknown)
            for key, each in value.items()
        }
        if isinstance(value, OrderedDict):
            plain = OrderedDict(plain)
            vars(plain).update(vars(value))  # PyTorch's _metadata
        return plain
    if isinstance(value, (list, tuple, set, frozenset)) and not isinstance(
        value, torch.Size
    ):
        items = [to_plain(each, f'{name}[]', unknown) for each in value]
        kind = next(
            each for each in (list, tuple, set, frozenset) if isinstance(value, each)
        )
        return set(items) if kind is frozenset else kind(items)
    if not isinstance(value, (*_PLAIN, torch.Size)) and unknown is not None:
        unknown.append(f'{name} ({type(value).__name__})')
    return value


def restore_histories(checkpoint: object) -> None:
    """Rebuild the log histories that :func:`to_plain` made plain, in place."""
    hub = checkpoint.get('message_hub') if isinstance(checkpoint, dict) else None
    scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
    if not isinstance(scalars, dict):
        return
    for name, entry in scalars.items():
        if isinstance(entry, dict) and set(entry) == _HISTORY:
            tensors = entry['log_history'], entry['count_history']
            arrays = [
                each.detach().cpu().numpy() if isinstance(each, Tensor) else None
                for each in tensors
            ]
            try:
                scalars[name] = make_history(*arrays, entry['max_length'])
            except ValueError:
                continue  # MMEngine skips what is no log history, with a warning
