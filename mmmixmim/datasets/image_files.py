"""Find the image files of a folder."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mmmixmim.text import plural, printable
from mmmixmim.validation import MissingFileError, UserError

from .file_list import check_link, is_left_out, not_listed
from .raster_folder import RASTERS

# Beside run.json, in the folder of a run of ``mixmim``.
_RUN = {'config.py', 'scan.json'}
# What Windows and DICOM keep beside images.
_SIDE_FILES = {'thumbs.db', 'desktop.ini', 'dicomdir'}
_SHOWN = 3  # endings that are named
_TRIED = 20  # files without an ending that are opened


@dataclass
class Skipped:
    """Files of folders that are left out because of their ending.

    Attributes:
        endings: Number of files by ending; '' is none.
        dicom: One without an ending that starts as DICOM does; None if none is known.
    """

    endings: Counter[str] = field(default_factory=Counter)
    dicom: Path | None = None

    def add(self, folder: str, name: str) -> None:
        """Count a file."""
        if name.lower() in _SIDE_FILES:
            return
        ending = os.path.splitext(name)[1].lower()
        if ending[1:].isdigit():  # of a name without an ending, such as DICOM's 1.2.840
            ending = ''
        self.endings[ending] += 1
        if not ending and not self.dicom and self.endings[''] <= _TRIED:
            file = Path(folder, name)
            self.dicom = file if _is_dicom(file) else None

    def __str__(self) -> str:
        most = self.endings.most_common(_SHOWN)
        count = self.endings.total()
        others = count - sum(number for _, number in most)
        most += [('others', others)] if others else []
        listed = (f'{printable(name) or "none"} ({number:,})' for name, number in most)
        text = (
            f'{plural(count, "file")} whose ending is not that of an image: '
            f'{", ".join(listed)}'
        )
        if self.dicom:
            text += (
                f'. {str(self.dicom)!r} has no ending and looks like DICOM: add .dcm '
                'to the names of such files'
            )
        return text


def find_images(
    root: Path, extensions: Iterable[str] = RASTERS, skipped: Skipped | None = None
) -> list[Path]:
    """List the images of a folder and its subfolders, sorted.

    Files and folders whose names start with a dot are left out, as are folders of runs
    among shards.

    Args:
        root: The folder.
        extensions: Endings of images, in lower case. Defaults to all that we read.
        skipped: Gets the files of other endings. Defaults to None: they are not kept.

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
    skipped = Skipped() if skipped is None else skipped
    found, run = [], None
    for folder, folders, names in os.walk(root, onerror=not_listed, followlinks=True):
        folders[:] = [each for each in folders if not is_left_out(each)]
        for each in folders:
            check_link(Path(folder, each))
        if 'run.json' in names and not _RUN.isdisjoint(names):
            run = folder
            folders.clear()
            continue
        for each in names:
            if is_left_out(each):
                continue
            if each.lower().endswith(endings):
                found.append(Path(folder, each))
            else:
                skipped.add(folder, each)
    if run and (found or not any(root.glob('*.tar'))):
        raise UserError(
            f'{run!r} is the folder of a run, whose pictures are no images to train '
            f'on: move it out of {str(root)!r}.'
        )
    if not found:
        there = f' It has {skipped}.' if skipped.endings else ''
        raise MissingFileError(
            f'The folder {str(root)!r} holds no images: no file at any depth ends in '
            f'{", ".join(sorted(endings))}.{there}'
        )
    return sorted(found)


def _is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM does."""
    with suppress(OSError):
        if file.is_file():  # to read from a pipe would wait
            with file.open('rb') as stream:
                return stream.read(132)[128:] == b'DICM'
    return False


def fingerprint(files: Iterable[Path]) -> str:
    """Hash of the names, sizes and times of change of files."""
    digest = hashlib.blake2b(b'format 3', digest_size=16)
    for file in files:
        digest.update(os.fsencode(file))
        with suppress(OSError):  # a link to nothing
            info = file.stat()
            digest.update(f'\0{info.st_size}\0{info.st_mtime_ns}\0'.encode())
    return digest.hexdigest()
