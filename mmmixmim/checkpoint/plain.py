"""Checkpoints that hold nothing but plain values, log histories included.

``torch.load(weights_only=True)`` reads such files without a list of safe names.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import PurePath

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from .stand_ins import make_history

# What the weights-only unpickler knows, next to containers. It knows no subclasses.
_PLAIN = {
    *(Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device),
    *(bool, int, float, complex, str, bytes, bytearray, type(None)),
}
# How subclasses of plain types, such as IntEnum, become plain.
_BASES = {int: int.__int__, float: float.__float__, str: str.__str__}
_HISTORY = {'log_history', 'count_history', 'max_length'}


def to_plain(value: object, name: str = '', unknown: list[str] | None = None) -> object:
    """Turn log histories, NumPy values, paths and such into plain values.

    Args:
        value: Content of a checkpoint. It is not changed.
        name: Its name in the checkpoint, as 'message_hub.runtime_info'.
        unknown: List to which the names of objects are added that are no plain values.

    Returns:
        The same content: a log history is a dict of two tensors and a length, an array
        is a list, a path is a str, an ``IntEnum`` is an int. Tensors and unknown
        objects are the same objects.
    """
    if type(value) in _PLAIN:
        return value
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
    for base, convert in _BASES.items():
        if isinstance(value, base):
            return convert(value)
    if isinstance(value, dict):
        plain = {
            to_plain(key, f'keys of {name}', unknown): to_plain(
                each, f'{name}.{key}'.lstrip('.'), unknown
            )
            for key, each in value.items()
        }
        if isinstance(value, OrderedDict):
            plain = OrderedDict(plain)
            vars(plain).update(vars(value))  # PyTorch's _metadata
        return plain
    for kind in (list, tuple, set):
        if isinstance(value, kind):
            return kind(to_plain(each, f'{name}[]', unknown) for each in value)
    if unknown is not None:
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
