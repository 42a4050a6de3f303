"""Which images could not be read, and which one a process is reading."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mmmixmim.log import warn
from mmmixmim.text import printable
from mmmixmim.validation import StoppedRunError, UnreadableFileError

_LOST = re.compile(
    r'DataLoader worker \(pid(?:\(s\))? (?P<pids>[\d, ]+)\) (?P<how>[^.\n]*)'
)
# What PyTorch says if /dev/shm is full.
_FULL = re.compile(
    'unable to (allocate shared|write to file </torch)|out of shared mem'
)


class UnreadableImages:
    """Record of unreadable images that all data loading processes share.

    It lies in a temporary folder: a list to which every process appends, and a note of
    each process of the file that it is reading, which outlives the process. Transforms
    take their record from :func:`unreadable_images` when the main process builds them,
    and bring it along to the workers, by whatever method these are started.

    Args:
        folder: A folder.
    """

    # A folder of which one percent is damaged gives this many in a row once in 1e40.
    MAX_IN_A_ROW = 20

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._in_a_row = 0

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """Note that this process reads a file."""
        note = _open_note(self.folder, os.getpid())
        os.pwrite(note, os.fsencode(path) + b'\0', 0)
        try:
            yield
        finally:
            os.pwrite(note, b'\0', 0)
        self._in_a_row = 0

    def add(self, path: str, reason: object) -> None:
        """Record an unreadable file, and log it if no hook will.

        Raises:
            UnreadableFileError: If this process could read none of the last files.
        """
        # Some reasons name the image, which is said anyway.
        reason = str(reason).removeprefix(f'The image {str(path)!r} cannot be read: ')
        path, reason = printable(str(path)), printable(reason.rstrip('.'))
        self._in_a_row += 1
        if self._in_a_row >= self.MAX_IN_A_ROW:
            raise UnreadableFileError(
                f'{self._in_a_row} images in a row cannot be read, the last one '
                f'{path}: {reason}. Check that the folder has the right images, and '
                'the disk.'
            )
        with (self.folder / 'list').open('a') as file:
            file.write(json.dumps([path, reason]) + '\n')
        if not (self.folder / 'watched').exists():
            warn(f'The image {path} cannot be read: {reason}. Skipped.')

    def watch(self) -> int:
        """Leave it to the caller to log what is recorded; return where to start."""
        (self.folder / 'watched').touch()
        self._in_a_row = 0
        return self._size()

    def leave(self) -> None:
        """Log again what is recorded, since the caller of :meth:`watch` is done."""
        (self.folder / 'watched').unlink(missing_ok=True)

    def since(self, start: int) -> tuple[list[tuple[str, str]], int]:
        """Read what was recorded, in any process.

        Args:
            start: Where the last call ended.

        Returns:
            Paths and reasons, one for each attempt, and where to start the next time.
        """
        if self._size() == start:
            return [], start
        with (self.folder / 'list').open('rb') as file:
            file.seek(start)
            lines = file.read()
        lines = lines[: lines.rfind(b'\n') + 1]  # another process may be writing
        return [tuple(json.loads(x)) for x in lines.splitlines()], start + len(lines)

    def last_read(self, process: int) -> str | None:
        """Which file a process is or was reading, '' if none.

        Args:
            process: Its id.

        Returns:
            The path, or None if the process never read an image.
        """
        note = self.folder / f'reading-{process}'
        if not note.exists():
            return None
        return os.fsdecode(note.read_bytes().split(b'\0')[0])

    def _size(self) -> int:
        try:
            return os.stat(self.folder / 'list').st_size
        except FileNotFoundError:
            return 0


def unreadable_images() -> UnreadableImages:
    """Return the record of this process, which transforms hand on to its workers."""
    return _new_record(os.getpid())


@contextmanager
def naming_lost_files() -> Iterator[None]:
    """Name the files that data loading processes were reading when they died.

    Raises:
        StoppedRunError: If one was killed, or crashed, while it read an image; or if
            the shared memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        lost = _LOST.search(str(error))
        record = unreadable_images()
        pids = [int(pid) for pid in lost['pids'].split(',')] if lost else []
        files = [record.last_read(pid) for pid in pids]
        if not any(files):
            if not _FULL.search(str(error)):
                raise
            raise StoppedRunError(
                'The shared memory, in which data loading processes hand over batches, '
                'is full. Give a container more (docker run --shm-size=8g), remove '
                'what lies in /dev/shm, or lower train_dataloader.num_workers.'
            ) from error
        raise StoppedRunError(
            f'A data loading process (pid {lost["pids"]}) {lost["how"].strip()} while '
            f'it read {", ".join(printable(file) for file in files if file)}. If the '
            'file is damaged or far too large, remove it. If memory ran out, lower '
            'train_dataloader.num_workers.'
        ) from error


@cache
def _new_record(process: int) -> UnreadableImages:
    folder = tempfile.mkdtemp(prefix='mmmixmim-')
    atexit.register(_remove, folder, process)
    return UnreadableImages(folder)


@cache
def _open_note(folder: Path, process: int) -> int:
    return os.open(folder / f'reading-{process}', os.O_WRONLY | os.O_CREAT, 0o600)


def _remove(folder: str, process: int) -> None:
    # Not when a forked process ends.
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
