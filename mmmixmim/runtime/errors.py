"""One line for an error that the user can correct, a traceback for a bug."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmmixmim.validation import UserError

# Errors of other libraries: type, what their message contains, what we print. They
# have no type of their own, so only the message tells them from a bug.
_OTHERS = (
    (
        TypeError,  # Python, for a config entry that no class takes
        r"(?P<message>.*unexpected keyword argument '(?P<name>.+?)'.*)",
        '{message}. Check the entry {name} in the config and in --cfg-options.',
    ),
    (
        KeyError,  # MMEngine's registries, for an unknown type
        r'(?P<message>.*registry.*)',
        '{message}',
    ),
    (
        AssertionError,  # mmcv's LoadImageFromFile
        r'failed to load image: (?P<path>.+)',
        'the image {path} cannot be read: repair or remove it, and continue with '
        '--resume.',
    ),
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Exit with ``error: <message>`` on a :class:`UserError` or a known mistake.

    Anything else is a bug and keeps its traceback.
    """
    try:
        yield
    except (UserError, FileNotFoundError) as error:
        raise SystemExit(f'error: {_without_traceback(str(error))}') from error
    except (TypeError, KeyError, AssertionError) as error:
        line = _explain(error)
        if line is None:
            raise
        raise SystemExit(f'error: {line}') from error


def _without_traceback(message: str) -> str:
    """Drop the worker's traceback that PyTorch puts before a message."""
    if not message.startswith('Caught '):
        return message
    return message.strip().splitlines()[-1].partition(': ')[2]


def _explain(error: Exception) -> str | None:
    message = str(error.args[0]) if error.args else ''
    for kind, pattern, line in _OTHERS:
        match = re.search(pattern, message)
        if isinstance(error, kind) and match:
            return line.format(**match.groupdict())
    return None
