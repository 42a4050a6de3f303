"""Find the checkpoint that an interrupted run continues from, and check it."""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path

from mmmixmim.log import warn
from mmmixmim.runtime.files import replace_file
from mmmixmim.text import summarise_keys
from mmmixmim.validation import StoppedRunError, UserError

from .formats import StateDict

# What training saves, as default names of MMEngine's CheckpointHook and ours.
LATEST = 'latest.pth'
NAMES = ('epoch_*.pth', 'iter_*.pth', LATEST)
NOTE = 'last_checkpoint'  # file that names the last one
STATE = ('meta', 'message_hub', 'optimizer')
PARTIAL = '.partial'  # suffix of files that are being written
# File that is newer than all checkpoints of earlier runs in the same folder. It names
# the last of them, or that of another folder from which the run continues.
EARLIER = 'earlier_checkpoint'
_ASIDE = 'earlier_latest_'
OLD = f'.old{PARTIAL}'  # suffix of folders that are being replaced


def find_resumable(folder: str | Path) -> str | None:
    """Return the newest undamaged checkpoint of a run, or None if it has none.

    It is the one that ``last_checkpoint`` names, if it is complete and has the state of
    an optimizer, and else the last one of this kind that was written. A run whose
    folder was moved finds its own, also where another run is now in the folder that it
    came from. See :func:`start_afresh` for several runs in one folder.

    Args:
        folder: Work folder of the run.

    Raises:
        StoppedRunError: If there are checkpoints, all damaged.
    """
    folder = Path(folder)
    restore(folder)
    named, last = _named(folder), noted(folder)
    if '://' in last:
        return last
    # Another folder is ``out_dir`` of the checkpoint hook.
    folders = [folder, Path(last).parent] if last else [folder]
    found = _newest_first(folder, folders, last)
    paths = [Path(last), *found] if last else found
    complete = filter(is_complete, paths)
    # Another hook may save weights alone, and name them last.
    path = next(filter(_has_optimizer, complete), None)
    path = path or next(filter(is_complete, paths), None)
    if path:
        if named and os.path.realpath(path) != os.path.realpath(named):
            warn(
                f'{named}, the last checkpoint, is damaged, without optimizer, or no '
                'longer there, as in a folder that was moved. The run continues from '
                f'{path}.'
            )
        return str(path)
    if last or found:
        raise StoppedRunError(
            f'No checkpoint in {folder} is complete; the last one is '
            f'{last or found[0]}. Restore one.'
        )
    mark = folder / EARLIER
    if mark.is_file():
        warn(
            f'{folder} has no checkpoint of the run that was started last, so it '
            f'starts anew. To continue from an earlier one: --resume {mark.read_text()}'
        )
    return None


def noted(folder: str | Path) -> str:
    """Path that ``last_checkpoint`` names, complete or not.

    It is in the folder itself if the run was moved: if nothing is where it was saved,
    or another run.

    Args:
        folder: Work folder of the run.

    Returns:
        The path; '' if no checkpoint is named.
    """
    folder = Path(folder)
    named = _named(folder)
    if not named or '://' in named:
        return named
    path, own = Path(named), folder / Path(named).name
    of_another_run = (path.parent / NOTE).exists()
    if of_another_run or own.exists() and not path.exists():
        return str(own)
    return named


def _named(folder: Path) -> str:
    """What ``last_checkpoint`` says, '' if there is none of this run."""
    note = folder / NOTE
    if not (note.is_file() and _of_this_run(folder, note)):
        return ''
    named = note.read_text(errors='replace').strip()
    try:
        Path(named).exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # no path at all
            return ''
    return named


def start_afresh(folder: str | Path) -> str | None:
    """Note which checkpoints are there before a run from scratch.

    Else a run that dies before its first checkpoint would continue an earlier run of
    the same folder. :func:`set_earlier_aside` makes it count, once training has begun.

    Args:
        folder: Work folder of a run that starts from scratch.

    Returns:
        The last checkpoint of the earlier run, by its name once it is set aside; None
        if there is none.
    """
    folder = Path(folder)
    found = _newest_first(folder, [folder])
    last = noted(folder) or (str(found[0]) if found else None)
    if not last:
        return None
    path = Path(last)
    if path.name == LATEST and path.exists():  # which the new run would replace
        names = (path.with_name(f'{_ASIDE}{number}.pth') for number in count(1))
        last = str(next(name for name in names if not name.exists()))
    replace_file(folder / f'{EARLIER}{PARTIAL}', last)
    return last


def set_earlier_aside(folder: str | Path) -> None:
    """Let :func:`find_resumable` leave out what :func:`start_afresh` has noted.

    The checkpoints themselves stay. ``latest.pth`` gets another name if it is the last.

    Args:
        folder: Work folder of the run.
    """
    folder = Path(folder)
    partial, note = folder / f'{EARLIER}{PARTIAL}', folder / NOTE
    if partial.exists():
        last = Path(partial.read_text())
        latest = last.with_name(LATEST)
        if last.name.startswith(_ASIDE) and latest.exists() and not last.exists():
            latest.replace(last)
        partial.replace(folder / EARLIER)  # which keeps the time of the start
    if note.exists() and not _of_this_run(folder, note):
        note.unlink()


def claim(folder: Path, path: Path) -> None:
    """Let a new file count as of this run, also if the clock was set back.

    Args:
        folder: Work folder of the run.
        path: The file, or a folder.
    """
    if not _of_this_run(folder, path):
        since = (folder / EARLIER).stat().st_mtime_ns
        os.utime(path, ns=(since, since))


def without_earlier(folder: str | Path, paths: Iterable[Path]) -> list[Path]:
    """Leave out files that are older than the last start from scratch.

    Args:
        folder: Work folder of the run.
        paths: The files.
    """
    return [path for path in paths if _of_this_run(Path(folder), path)]


def _of_this_run(folder: Path, path: Path) -> bool:
    """Whether a file exists and is not older than the last start from scratch."""
    mark = folder / EARLIER
    since = mark.stat().st_mtime_ns if mark.exists() else 0
    return path.exists() and path.stat().st_mtime_ns >= since


def _newest_first(folder: Path, folders: list[Path], last: str = '') -> list[Path]:
    """Checkpoints of a run in some folders: ``NAMES``, and others named as the last."""
    names = {*NAMES, re.sub(r'\d+', '*', Path(last).name)} - {''}
    found = (path for each in folders for name in names for path in each.glob(name))
    paths = without_earlier(folder, found)
    return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def is_complete(path: str | Path) -> bool:
    """Whether a file is an undamaged checkpoint; or a folder, one of several parts."""
    if Path(path).is_dir():
        return True
    if not Path(path).is_file():  # reading a pipe would wait for ever
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises anything at damaged headers
        return False


def _has_optimizer(path: Path) -> bool:
    """Whether a complete checkpoint has the state of an optimizer."""
    if path.is_dir():
        return True
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith('.pkl')]
        # The key of the dictionary, after its length, in protocols 2 and 4.
        key = re.compile(rb'(X\x09\0\0\0|\x8c\x09)optimizer')
        return any(key.search(archive.read(name)) for name in pickles)


def restore(folder: Path) -> None:
    """Give folders their names back whose replacement was interrupted."""
    for old in folder.glob(f'*{OLD}'):
        path = old.with_name(old.name.removesuffix(OLD))
        if not path.exists():
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(old, path)


def check_resumable(
    checkpoint: dict, own: StateDict | None, path: str | None, scheduled: bool = False
) -> None:
    """Raise unless training can continue from a checkpoint.

    Args:
        checkpoint: Its content.
        own: State dict of the model. None if it cannot be compared.
        path: Where it comes from, for the message.
        scheduled: Whether the run has schedules, whose state is needed then.

    Raises:
        UserError: If it has no state of a training, or is of another model.
    """
    path = path or 'The checkpoint'
    needed = (*STATE, 'param_schedulers') if scheduled else STATE
    missing = [key for key in needed if key not in checkpoint]
    if missing:
        raise UserError(
            f'{path} has no {" and no ".join(missing)}, so no training can continue '
            'from it. To start from its weights, leave out --resume and pass '
            '--cfg-options load_from=FILE.'
        )
    if own is None:
        return
    state = checkpoint['state_dict']
    theirs = {
        name.removeprefix('module.'): value.shape for name, value in state.items()
    }
    ours = {name.removeprefix('module.'): value.shape for name, value in own.items()}
    odd = [n for n in {**ours, **theirs} if ours.get(n) != theirs.get(n)]
    if odd:
        raise UserError(
            f'{path} is of another model than the config: they differ in '
            f'{summarise_keys(odd)}. Resume with the config that it was trained with.'
        )
