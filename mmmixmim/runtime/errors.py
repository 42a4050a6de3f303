"""Print errors that users can correct as one line; bugs keep their traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmmixmim.text import printable
from mmmixmim.validation import UserError

# Errors of other libraries: type, message pattern, printed line. Their types are
# built-in ones, so only the message tells a user's mistake from a bug.
_OTHERS = (
    (
        TypeError,  # Python: a config entry that is not an argument of the class
        r"(?P<message>.*unexpected keyword argument '(?P<name>.+?)'.*)",
        '{message}. Check the entry {name} in the config and in --cfg-options.',
    ),
    (
        KeyError,  # MMEngine's registries: an unknown type
        r'(?P<message>.*?registry.*?)(\. More details can be found.*)?$',
        '{message}',
    ),
    (
        KeyError,  # MMEngine resumes from a file of weights alone
        r'^(meta|message_hub)$',
        'The checkpoint has weights alone, so no run can be resumed from it. To start '
        'from its weights, set load_from with --cfg-options instead of --resume.',
    ),
    (
        AssertionError,  # mmcv's LoadImageFromFile
        r'failed to load image: (?P<path>.+)',
        'cannot read the image {path}. Repair or remove it, then continue with '
        '--resume.',
    ),
)
# What a user can do something about: full disks, missing permissions.
_STORAGE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with ``error: <message>`` on a :class:`UserError` or a known mistake.

    Any other exception is a bug and keeps its traceback. Works as a context manager
    and, with parentheses, as a decorator.
    """
    try:
        yield
    except (UserError, FileNotFoundError) as error:
        line = printable(_without_traceback(str(error)))
        raise SystemExit(f'error: {line}') from error
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        where = printable(str(error.filename or 'a log or checkpoint'))
        raise SystemExit(
            f'error: {where} cannot be read or written: {error.strerror}. Check the '
            'path, its permissions and the free space there. Training resumes from the '
            'last checkpoint.'
        ) from error
    except (TypeError, KeyError, AssertionError) as error:
        line = _explain(error)
        if line is None:
            raise
        raise SystemExit(f'error: {printable(line)}') from error


@contextmanager
def naming_full_memory(or_else: str = '') -> Iterator[None]:
    """Raise a :class:`UserError` if the memory of the GPU is full.

    Works as a context manager and, with parentheses, as a decorator.

    Args:
        or_else: Another way out than to end other programs. Defaults to ''.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        way_out = f'end what else uses it{or_else and ", or "}{or_else}'
        raise UserError(f'The GPU has run out of memory: {way_out}.') from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the memory of a GPU is full; each library says so in other words."""
    return bool(re.search('out of memory|ALLOC(ATION)?_FAILED', str(error)))


def _without_traceback(message: str) -> str:
    """Drop the traceback that PyTorch prepends to errors of dataloader workers."""
    if not message.startswith('Caught '):
        return message
    return message.strip().splitlines()[-1].partition(': ')[2]


def _explain(error: Exception) -> str | None:
    """Return the line for a known error of another library, or None."""
    message = str(error.args[0]) if error.args else ''
    for kind, pattern, line in _OTHERS:
        match = re.search(pattern, message)
        if isinstance(error, kind) and match:
            return line.format(**match.groupdict())
    return None
