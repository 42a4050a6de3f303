"""Files of an attacker: each runs code where it is loaded without care."""

import os
import pickle

import torch


class Attack:
    """What makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Call:
    """What calls a function when it is unpickled.

    Args:
        function: The function.
        args: Its arguments.
    """

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def text(marker):
    """Text of a config that makes a folder when MMEngine parses it."""
    return f'import os\nos.mkdir({str(marker)!r})\n'


# Sets a name in the globals of MMEngine's module, by nothing but what MMEngine's list
# of safe names allows: getattr(HistoryBuffer.mean, '__globals__')['hacked'] = 1.
_GETATTR = b''.join(
    (
        b'\x80\x02cbuiltins\ngetattr\n',
        b'cbuiltins\ngetattr\n',
        b'cmmengine.logging.history_buffer\nHistoryBuffer\n',
        b'X\x04\x00\x00\x00mean\x86R',
        b'X\x0b\x00\x00\x00__globals__\x86R',
        b'X\x06\x00\x00\x00hackedK\x01s.',
    )
)


def write_header(file):
    """Write what begins a file in PyTorch's old format."""
    system = dict(protocol_version=1001, little_endian=True, type_sizes={})
    for part in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(part, file, protocol=2)


def globals_file(path):
    """Write an attack by names on MMEngine's list, in PyTorch's old format."""
    with open(path, 'wb') as file:
        write_header(file)
        file.write(_GETATTR)
        pickle.dump([], file, protocol=2)


def pickle_file(path, marker, weights=None, key='state_dict'):
    """Write weights next to an attack by pickle."""
    meta = dict(epoch=0, iter=0, attack=Attack(marker))
    torch.save({key: weights or {}, 'meta': meta}, path)


def text_file(path, marker, weights=None, **extras):
    """Write weights next to an attack by the text of a config; all plain values."""
    code = text(marker)
    hub = dict(log_scalars={}, runtime_info=dict(cfg=code), resumed_keys=dict(cfg=True))
    meta = dict(epoch=0, iter=0, config=code, cfg=code)
    torch.save(
        dict(state_dict=weights or {}, meta=meta, message_hub=hub, **extras), path
    )
