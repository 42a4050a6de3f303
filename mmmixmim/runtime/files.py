"""Files that readers never find half written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from uuid import uuid4

from mmmixmim.validation import UserError

LOCK = '.lock'
PART = '.part'  # ending of files that are being written


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
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(file.open('a'))
            # Loader processes do not inherit this kind of lock.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f'Another process uses {str(folder)!r}: wait for its end, or choose '
                f'another {option}. If there is none, since its machine has died or '
                f'its user was another one, remove {str(file)!r}.'
            ) from error
        except OSError:  # a disk without locks
            pass
        yield


@contextmanager
def replacing(path: Path, given: bool = False) -> Iterator[Path]:
    """Give a new file to write, which replaces another one at the end.

    If writing fails, the old file stays and the new one is removed.

    Args:
        path: The file to replace. Missing parent folders are created.
        given: Whether the user gave the path. Then a link stays one, and a device or
            pipe is written to. Defaults to False: a file of a name of ours, in a folder
            that may come from a stranger, replaces even a link to something else.
    """
    if given and path.exists() and not path.is_file():  # such as /dev/stdout
        yield path
        return
    if given:
        path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes, of several machines, may write it at the same time.
    part = path.with_name(f'.{path.name}.{uuid4().hex}{PART}')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_file(path: Path, content: str | bytes, given: bool = False) -> None:
    """Write a file, whose old content or new content is there at any moment.

    Args:
        path: The file. Missing parent folders are created.
        content: Bytes, or text that is written in UTF-8.
        given: Whether the user gave the path, see :func:`replacing`.
    """
    with replacing(path, given) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, content: object, given: bool = False) -> None:
    """Write a JSON file as :func:`replace_file` does."""
    replace_file(path, json.dumps(content, indent=2) + '\n', given)


def existing(path: Path) -> Path:
    """The path, or the closest of its parents that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def check_out(file: Path, kind: str, endings: Collection[str] = ()) -> None:
    """Raise unless the file that --out names can be written. Nothing is left behind.

    Args:
        file: The file.
        kind: What it is, for the message, such as 'a .csv file'.
        endings: Which endings it may have. Defaults to (): any.

    Raises:
        UserError: It names the file.
    """
    if file.is_dir() or endings and file.suffix.lower() not in endings:
        what = 'is a folder' if file.is_dir() else 'is none'
        raise UserError(f'--out must be the name of {kind}: {str(file)!r} {what}.')
    if file.exists() and not file.is_file():  # a device, such as /dev/stdout
        return
    there = existing(file.parent)
    try:
        TemporaryFile(dir=there).close()  # permissions alone do not tell
    except OSError as error:
        raise UserError(
            f'--out {str(file)!r} cannot be written in {str(there)!r} '
            f'({error.strerror}): choose another file.'
        ) from error
