"""The files of a folder, remembered between starts."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

from mmmixmim.runtime import replace_file
from mmmixmim.validation import UserError

FORMAT = 'mmmixmim files 1'
_COARSE = 2 * 10**9  # ns between the times of change that any file system knows


def list_files(root: str, cache: str | None = None) -> list[str]:
    """List the files of a local folder and its subfolders, or read the list.

    The list is read if no folder has changed since it was written: adding, removing or
    renaming a file changes the modification time of its folder. So it takes a look at
    the folders, not at the files.

    Args:
        root: The folder. Names that start with a dot are left out, and ``lost+found``.
        cache: File of the list. It is written if it is missing, out of date, damaged,
            or that of another folder. Defaults to None: the folder is listed.

    Returns:
        Sorted paths, relative to ``root``, with slashes.

    Raises:
        UserError: If a link leads to a folder above it, or a folder cannot be listed.
    """
    root = os.path.abspath(os.path.expanduser(root))
    file = Path(cache).expanduser() if cache else None
    names = _read(file, root) if file else None
    if names is None:
        folders: dict[str, int | None] = {}
        names = sorted(_scan(root, folders))
        if file:
            _write(file, root, folders, names)
    return names


def check_link(folder: Path) -> None:
    """Raise if a folder is a link to a folder above it, also one reached by a link.

    So links that lead to each other's folders are found.
    """
    if folder.is_symlink():
        target = folder.resolve()
        above = {each.resolve() for each in Path(os.path.abspath(folder)).parents}
        if any(target in (each, *each.parents) for each in above):
            raise UserError(
                f'{str(folder)!r} is a link to {str(target)!r}, a folder above it, so '
                'the search for images would never end: remove the link.'
            )


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name belongs to the system, not to the data."""
    # ext4 puts lost+found at the root of a disk; only root may list it.
    return name.startswith('.') or name == 'lost+found'


def not_listed(error: OSError) -> None:
    """What ``os.walk`` calls if it cannot list a folder, which it would leave out.

    Raises:
        UserError: It names the folder.
    """
    raise UserError(
        f'The folder {error.filename!r} cannot be listed ({error.strerror}): make it '
        'readable, or move it away.'
    ) from error


def _write(file: Path, root: str, folders: dict, names: list[str]) -> None:
    header = json.dumps(dict(format=FORMAT, root=root, folders=folders))
    # No name holds a zero byte. Names need not be valid Unicode.
    replace_file(file, os.fsencode('\0'.join([header, *names])), given=True)


def _read(file: Path, root: str) -> list[str] | None:
    """The list, or None if it is not that of the folder as it is now."""
    try:
        header, *names = os.fsdecode(file.read_bytes()).split('\0')
        known = json.loads(header)
        if known['format'] != FORMAT or known['root'] != root:
            return None
        for folder, modified in known['folders'].items():
            if os.stat(os.path.join(root, folder)).st_mtime_ns != modified:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return names


def _scan(root: str, folders: dict[str, int | None]) -> list[str]:
    """Names of all files; collects the modification times of the folders, if past."""
    names, waiting = [], ['']
    while waiting:
        folder = waiting.pop()
        path = os.path.join(root, folder)
        try:
            # Before its files are read: what comes later changes the time again, unless
            # it comes at once and the disk has coarse times.
            changed = os.stat(path).st_mtime_ns
            listing = os.scandir(path)
        except OSError as error:
            not_listed(error)
        folders[folder] = changed if changed < time.time_ns() - _COARSE else None
        prefix = f'{folder}/' if folder else ''
        with listing as entries:
            for entry in entries:
                if is_left_out(entry.name):
                    continue
                name = prefix + entry.name
                try:
                    is_folder, is_file = entry.is_dir(), entry.is_file()
                except OSError as error:
                    if error.errno != errno.ELOOP:  # a link to itself
                        raise
                    continue
                if is_folder:
                    check_link(Path(entry.path))
                    waiting.append(name)
                elif is_file:  # no pipe, and no link to nothing
                    names.append(name)
    return names
