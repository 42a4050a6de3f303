"""Files that readers never find half written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from mmmixmim.validation import UserError

LOCK = '.lock'


@contextmanager
def created(folder: Path) -> Iterator[None]:
    """Create a folder with its parents, and remove those that are empty at the end.

    No other process may begin to write there meanwhile.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # one is not empty
            for each in new:
                each.rmdir()


@contextmanager
def locked(folder: Path, option: str) -> Iterator[None]:
    """Keep other processes from writing a run into a folder.

    A disk without locks is no error. The same process may lock a folder twice, but the
    end of one lock ends both.

    Args:
        folder: The folder of the run.
        option: The option that names it.

    Raises:
        UserError: If another process has locked it.
    """
    file = folder / LOCK
    with file.open('a') as lock:
        try:
            # Loader processes do not inherit this kind of lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f'Another process uses {str(folder)!r}: wait for its end, or choose '
                f'another {option}. If there is none, since its machine has died, '
                f'remove {str(file)!r}.'
            ) from error
        except OSError:  # a disk without locks
            pass
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file to write, which replaces another one at the end.

    If writing fails, the old file stays and the new one is removed.

    Args:
        path: The file to replace. Missing parent folders are created.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes, of several machines, may write it at the same time.
    part = path.with_name(f'.{path.name}.{uuid4().hex}.part')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file, whose old content or new content is there at any moment.

    Args:
        path: The file. Missing parent folders are created.
        content: Bytes, or text that is written in UTF-8.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def existing(path: Path) -> Path:
    """The path, or the closest of its parents that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def check_out_file(file: Path) -> None:
    """Raise a UserError unless the file that --out names can be written."""
    above = existing(file.absolute().parent)
    if file.is_dir() or not above.is_dir():
        found = file if file.is_dir() else above
        kind = 'folder' if file.is_dir() else 'file'
        raise UserError(
            f'--out {str(file)!r} cannot be written, since {str(found)!r} is a {kind}: '
            'name a JSON file in a folder.'
        )
