"""Limit what a file can make PyTorch's weights-only unpickler call.

PyTorch calls only functions of its own list. But some of them take memory by a number,
such as ``bytearray(n)`` and ``torch.FloatTensor(n)``, and any call that is given a
tensor unpacks it, even one whose values are a single one, expanded. So a file may call
only what is listed here. Tensors are made once the file is read, until when nothing can
be done with them; all that the calls make is counted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident

import torch
from torch import Tensor, _utils
from torch import _weights_only_unpickler as theirs
from torch.serialization import _get_layout

_LOCK = RLock()
_left = 0  # how much the calls of the file that is being read may still make


class Storage:
    """Holds a storage, which would have as many values as a file claims."""

    def __init__(self, storage) -> None:
        self.storage = storage


class Call:
    """A call that makes a tensor, as a file asks for it.

    Args:
        function: The function.
        args: Its arguments.
    """

    def __init__(self, function: Callable, args: tuple) -> None:
        self.function = function
        self.args = args

    def make(self, args: tuple) -> Tensor:
        """Make the tensor, of arguments whose own calls have been made.

        Raises:
            ValueError: If it or its arguments claim more values than the file holds.
        """
        _check(args)
        result = self.function(*args)
        _check(result)
        return result


class _Parameter(Call):
    """A parameter, which old files make in two steps."""

    def __new__(cls, *args):
        self = super().__new__(cls)
        super().__init__(self, _make_parameter, (args, None))
        return self

    def __init__(self, *args) -> None:
        pass

    def __setstate__(self, state) -> None:
        self.args = self.args[0], state


@contextmanager
def limited_calls(limit: int) -> Iterator[None]:
    """Let this thread load files whose calls make no more than a limit.

    Args:
        limit: The limit, in bytes and entries of containers together.

    Yields:
        Nothing. The content of a file has :class:`Storage` and :class:`Call` for
        tensors and their storages.
    """
    global _left
    thread = get_ident()
    with _LOCK:
        before, Theirs = _left, theirs.Unpickler
        get_theirs = theirs._get_allowed_globals
        allowed = _Allowed(get_theirs() | _CALLS)

        class Unpickler(Theirs):
            def load(self):
                if get_ident() == thread:
                    load_storage = self.persistent_load
                    self.persistent_load = lambda name: Storage(load_storage(name))
                return super().load()

        # Other threads may load their own files meanwhile.
        theirs._get_allowed_globals = lambda: (
            allowed if get_ident() == thread else get_theirs()
        )
        theirs.Unpickler, _left = Unpickler, limit
        try:
            yield
        finally:
            theirs._get_allowed_globals, theirs.Unpickler = get_theirs, Theirs
            _left = before


def spend(amount: int) -> None:
    """Count what a call of a file makes.

    Raises:
        ValueError: If the file has made too much.
    """
    global _left
    _left -= amount
    if _left < 0:
        raise ValueError('it asks for more memory than a file of its size needs')


def check_size(tensor: Tensor) -> None:
    """Raise for a tensor that claims more values than the file holds for it.

    A copy of it could exceed the memory.
    """
    if tensor.layout != torch.strided or tensor.is_meta:
        return
    size = tensor.numel() * tensor.element_size()
    if size > max(tensor.untyped_storage().nbytes(), 1 << 20):
        raise ValueError(
            f'a tensor of shape {tuple(tensor.shape)} has fewer values than that'
        )


def _check(value: object, depth: int = 3) -> None:
    if isinstance(value, Tensor):
        check_size(value)
    elif isinstance(value, (list, tuple)):
        if not depth:
            raise ValueError('lists are nested too deeply')
        spend(len(value))
        for each in value:
            _check(each, depth - 1)


class _Allowed(dict):
    """What a file may name. PyTorch looks among the values for what it may call."""

    def values(self):
        return _CALLABLE


def _later(function: Callable) -> Callable:
    return lambda *args: Call(function, args)


def _make_parameter(args: tuple, state: tuple | None) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(*args)
    if state is not None:
        parameter.__setstate__(state)
    return parameter


def _make_from_cpu(data: Tensor, dtype: torch.dtype, device, grad: bool) -> Tensor:
    """A tensor of a device without storages, where its copy has been mapped to."""
    spend(data.numel() * dtype.itemsize)
    return data.to(dtype).requires_grad_(grad)


def _make_typed(tensor: Tensor, kind: type, state: object) -> Tensor:
    return torch._tensor._rebuild_from_type_v2(lambda: tensor, kind, (), state)


def _from_type(function: Callable, kind: type, args: tuple, state: object) -> Call:
    if function not in _CALLABLE:
        raise TypeError(f'a tensor by {function}')
    return Call(_make_typed, (function(*args), kind, state))


def _container(kind: type) -> Callable:
    def call(entries=()):
        spend(len(entries))
        return kind(entries)

    return call


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as pickle writes them. Other encodings could make more of them."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise TypeError(f'bytes by {encoding!r}')
    spend(len(text))
    return text.encode('latin1')


def _bytearray(data: bytes | str = b'', encoding: str = 'latin-1') -> bytearray:
    if isinstance(data, str):
        data = _encode(data, encoding)
    spend(len(data))
    return bytearray(data)


_CALLS = {
    'builtins.bytearray': _bytearray,
    'builtins.complex': complex,
    'builtins.set': _container(set),
    '_codecs.encode': _encode,
    'collections.Counter': _container(Counter),
    'collections.OrderedDict': _container(OrderedDict),
    'torch.Size': _container(torch.Size),
    'torch.device': torch.device,
    'torch.nn.parameter.Parameter': _Parameter,
    'torch.serialization._get_layout': _get_layout,
    'torch._tensor._rebuild_from_type_v2': _from_type,
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': _later(_make_from_cpu),
} | {
    f'torch._utils.{name}': _later(getattr(_utils, name))
    for name in (
        '_rebuild_meta_tensor_no_storage',
        '_rebuild_parameter',
        '_rebuild_parameter_with_state',
        '_rebuild_qtensor',
        '_rebuild_sparse_tensor',
        '_rebuild_tensor',
        '_rebuild_tensor_v2',
        '_rebuild_tensor_v3',
    )
}
_CALLABLE = tuple(_CALLS.values())
