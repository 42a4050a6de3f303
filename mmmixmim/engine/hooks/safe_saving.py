"""Write checkpoints such that each is complete or not there."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.runner import Runner

from mmmixmim.checkpoint.resumable import NOTE, OLD, PARTIAL, claim, restore
from mmmixmim.runtime.files import replace_file
from mmmixmim.validation import StoppedRunError


class SafeSaving:
    """A runner that saves its checkpoints safely."""

    def __init__(self, runner: Runner) -> None:
        self._runner = getattr(runner, '_runner', runner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Save under another name, and rename what is complete."""
        kwargs['meta'] = dict(kwargs['meta'])  # FlexibleRunner changes it
        if '://' in str(out_dir):  # storage that has whole files only
            self._runner.save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        path = Path(out_dir, filename)
        partial = path.with_name(path.name + PARTIAL)
        with one_error(path):  # all wait here, before any writes a part
            if is_main_process():
                remove(partial)
        with one_error(path):
            self._runner.save_checkpoint(out_dir, partial.name, *args, **kwargs)
        barrier()  # all parts of a sharded checkpoint are there
        with one_error(path):
            if is_main_process():
                claim(Path(self._runner.work_dir), partial)
                publish(partial, path)


@contextmanager
def one_error(path: Path) -> Iterator[None]:
    """Raise a StoppedRunError in all processes if one cannot write a file."""
    message = None
    try:
        yield
    except OSError as error:
        message = (
            f'The checkpoint {path} cannot be written: {error.strerror or error}. The '
            'previous one is kept. Make room or change the permissions, or set '
            'default_hooks.checkpoint.out_dir=FOLDER.'
        )
        with suppress(OSError):
            remove(path.with_name(path.name + PARTIAL))
    for found in all_gather_object(message):
        if found:
            raise StoppedRunError(found)


def publish(partial: Path, path: Path) -> None:
    """Give a written file or folder its name, once it is on the disk."""
    files = [each for each in partial.rglob('*') if each.is_file()] or [partial]
    for each in files:
        _flush(each)
    # A folder is not replaced in one step, and half removed it would look complete.
    old = path.with_name(path.name + OLD)
    remove(old)
    if path.is_dir():
        os.replace(path, old)
    os.replace(partial, path)
    try:
        _flush(path.parent)
    except OSError as error:  # network disks may flush no folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    remove(old)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def prepare_folder(folder: Path) -> None:
    """Raise unless files can be written; remove those of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    restore(folder)
    for each in folder.glob(f'*{PARTIAL}'):
        remove(each)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'test')


def name_last(folder: Path, checkpoint: str) -> None:
    """Write ``last_checkpoint``, which MMEngine's resuming reads."""
    partial = folder / f'{NOTE}{PARTIAL}'
    replace_file(partial, checkpoint)
    claim(folder, partial)
    publish(partial, folder / NOTE)
