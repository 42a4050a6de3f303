"""Find the image files of a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mmmixmim.validation import MissingFileError, UserError

from .file_list import check_link, not_listed
from .raster_folder import RASTERS

# Beside run.json, in the folder of a run of ``mixmim``.
_RUN = {'config.py', 'scan.json'}


def find_images(root: Path, extensions: Iterable[str] = RASTERS) -> list[Path]:
    """List the images of a folder and its subfolders, sorted.

    Files and folders whose names start with a dot are left out, as are folders of runs
    among shards.

    Raises:
        MissingFileError: If the folder does not exist, or holds no image.
        UserError: If a link leads to a folder above it, so that there is no end; a
            folder cannot be listed; or the folder of a run is among the images.
    """
    if not root.exists():
        raise MissingFileError(f'There is no folder {str(root)!r}: check the path.')
    if not root.is_dir():
        raise MissingFileError(f'{str(root)!r} is a file, expected a folder of images.')
    endings = tuple(extensions)
    found, run = [], None
    for folder, folders, names in os.walk(root, onerror=not_listed, followlinks=True):
        folders[:] = [each for each in folders if not _is_left_out(each)]
        for each in folders:
            check_link(Path(folder, each))
        if 'run.json' in names and not _RUN.isdisjoint(names):
            run = folder
            folders.clear()
            continue
        found += [
            Path(folder, each)
            for each in names
            if each.lower().endswith(endings) and not each.startswith('.')
        ]
    if run and (found or not any(root.glob('*.tar'))):
        raise UserError(
            f'{run!r} is the folder of a run, whose pictures are no images to train '
            f'on: move it out of {str(root)!r}.'
        )
    if not found:
        raise MissingFileError(
            f'The folder {str(root)!r} holds no images: no file at any depth ends in '
            f'{", ".join(sorted(endings))}.'
        )
    return sorted(found)


def _is_left_out(folder: str) -> bool:
    # ext4 puts lost+found at the root of a disk; only root may list it.
    return folder.startswith('.') or folder == 'lost+found'


def fingerprint(files: Iterable[Path]) -> str:
    """Hash of the names, sizes and times of change of files."""
    digest = hashlib.blake2b(b'format 3', digest_size=16)
    for file in files:
        digest.update(os.fsencode(file))
        with suppress(OSError):  # a link to nothing
            info = file.stat()
            digest.update(f'\0{info.st_size}\0{info.st_mtime_ns}\0'.encode())
    return digest.hexdigest()
