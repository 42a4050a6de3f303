"""Stand-ins for the objects that trainings save next to the weights.

PyTorch's weights-only unpickler makes these instead of what a file names, so nothing
that a file chooses is called: neither a class, nor ``getattr``, with which MMEngine's
own list of safe names lets a file change the globals of a module. What they recorded
is rebuilt afterwards from checked values.
"""

from __future__ import annotations

import argparse
import math
import re

import numpy as np
from mmengine.logging import HistoryBuffer

# Booleans, numbers and strings. Arrays of objects could hold anything.
_DTYPE = re.compile(r'[biufcUS]\d+')


class Inert:
    """Stands for an object that is not needed."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


class _DType(Inert):
    """Stands for ``numpy.dtype``."""

    def __init__(self, code='', *args) -> None:
        self.code = code if isinstance(code, str) else ''
        self.order = '='

    def __setstate__(self, state) -> None:
        self.order = state[1]

    def decode(self, data: object) -> np.ndarray | None:
        """Decode bytes to an array (N, ); None if they are not plain values."""
        if not isinstance(data, bytes) or not _DTYPE.fullmatch(self.code):
            return None
        dtype = np.dtype(self.code)
        if self.order in ('<', '>'):
            dtype = dtype.newbyteorder(self.order)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder('='))


class _Array(Inert):
    """Stands for ``numpy.ndarray``."""

    value: np.ndarray | None = None

    def __setstate__(self, state) -> None:
        _, shape, dtype, fortran, data = state
        values = dtype.decode(data)
        plain = isinstance(shape, tuple) and all(type(n) is int for n in shape)
        if values is not None and plain and math.prod(shape) == values.size:
            self.value = values.reshape(shape, order='F' if fortran else 'C')


class _History(Inert):
    """Stands for MMEngine's ``HistoryBuffer``."""

    state: dict | None = None

    def __setstate__(self, state) -> None:
        self.state = state


def _new_array(*args) -> _Array:
    return _Array()


def _scalar(dtype: _DType, data: bytes) -> object:
    values = dtype.decode(data)
    return Inert() if values is None else values[0].item()


STAND_INS = [
    (stand_in, name)
    for stand_in, names in (
        (_History, ['mmengine.logging.history_buffer.HistoryBuffer']),
        (_Array, ['numpy.ndarray']),
        (_DType, ['numpy.dtype']),
        (
            _new_array,
            [f'numpy.{core}.multiarray._reconstruct' for core in ('core', '_core')],
        ),
        (_scalar, [f'numpy.{core}.multiarray.scalar' for core in ('core', '_core')]),
        # Options of the authors' training: nothing but attributes.
        (argparse.Namespace, ['argparse.Namespace']),
        (
            Inert,
            [
                'builtins.getattr',
                'datetime.datetime',
                *(f'pathlib{part}.PosixPath' for part in ('', '._local')),
                *(f'pathlib{part}.WindowsPath' for part in ('', '._local')),
            ],
        ),
    )
    for name in names
]
"""Classes and functions, each with the name in files for which it stands."""


def rebuild(value: object, done: dict | None = None) -> object:
    """Replace stand-ins by what they stand for: arrays and log histories.

    Args:
        value: Content of a file. Its dicts and lists are changed in place.
        done: What has been replaced already, by id. A file may refer to the same
            object many times, or to one inside itself.

    Returns:
        The content, where other objects than plain values are empty.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)][0]
    result = value
    if isinstance(value, _Array):
        result = value if value.value is None else value.value
    elif isinstance(value, _History):
        result = _rebuild_history(value)
    elif isinstance(value, (dict, list, argparse.Namespace)):
        done[id(value)] = value, value
        items = vars(value) if isinstance(value, argparse.Namespace) else value
        for key in range(len(items)) if isinstance(items, list) else list(items):
            items[key] = rebuild(items[key], done)
    elif type(value) is tuple:
        result = tuple(rebuild(each, done) for each in value)
    else:
        return value
    # Keeps the value, too: ids are unique among living objects only.
    done[id(value)] = result, value
    return result


def _rebuild_history(history: _History) -> HistoryBuffer | _History:
    state = history.state if isinstance(history.state, dict) else {}
    values, counts = (
        getattr(state.get(name), 'value', None)
        for name in ('_log_history', '_count_history')
    )
    try:
        return make_history(values, counts, state.get('max_length'))
    except ValueError:
        return history


def make_history(values, counts, max_length) -> HistoryBuffer:
    """Make a log history from checked values.

    Args:
        values: Values of the log, a numeric array (N, ).
        counts: Their counts, a numeric array (N, ).
        max_length: How many values it keeps.

    Raises:
        ValueError: If these are not what a log history holds.
    """
    fits = (
        all(
            isinstance(each, np.ndarray) and each.ndim == 1 for each in (values, counts)
        )
        and all(each.dtype.kind in 'biuf' for each in (values, counts))
        and len(values) == len(counts)
        and isinstance(max_length, int)
        and max_length > 0
    )
    if not fits:
        raise ValueError('not the values of a log history')
    return HistoryBuffer(values, counts, max_length)
