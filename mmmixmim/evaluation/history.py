"""Read the scalars of a run from its work_dir."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

from mmmixmim.runtime.saved_config import read_config_text

from .curves import History

_SCALARS = 'vis_data/scalars.json'
# Where a start of a run has counted what it trains on.
COUNTS = 'vis_data/counts.json'
# Where DiagnosisHook has saved the curves that its verdicts come from.
CURVES = 'vis_data/curves.json'
_COUNTERS = {'iter', 'step'}
# Of validation; they would mix with those of training, which have the same names.
_TIMES = {'time', 'data_time'}
# A file may hold any number. Larger values, which float32 has not, are as infinite, and
# larger counts are none.
_LARGEST, _MOST = 3.5e38, 10**15


def run_starts(work_dir: str | Path) -> list[Path]:
    """List the folders of the starts that the present run consists of.

    Args:
        work_dir: The folder of the run, with a folder named after the time of each
            start.

    Returns:
        The folders, the oldest first: the last start from scratch and those that
        resumed it. Starts that logged no training are left out.
    """
    starts = []
    # Reading a pipe would wait for ever.
    files = (path for path in Path(work_dir).glob(f'*/{_SCALARS}') if path.is_file())
    for folder in sorted((path.parent.parent for path in files), key=_began):
        if any('iter' in record for record in _read_records(folder / _SCALARS)):
            starts = [*starts, folder] if _resumed(folder) else [folder]
    return starts


def start_time(start: Path) -> datetime | None:
    """When a start began, as MMEngine names its folder; None for other names."""
    try:
        return datetime.strptime(start.name, '%Y%m%d_%H%M%S')
    except ValueError:
        return None


def start_config(start: Path) -> dict:
    """Read the config of a start; empty if it has none.

    Args:
        start: The folder of the start.
    """
    config = start / 'vis_data' / 'config.py'
    if not config.is_file():
        return {}
    return read_config_text(config.read_text('utf8', 'replace'))


def read_counts(start: Path) -> dict[str, int]:
    """Read what ``ReportHook`` has counted at a start; what is no count is left out.

    Args:
        start: The folder of the start.
    """
    if not (start / COUNTS).is_file():
        return {}
    try:
        counts = json.loads((start / COUNTS).read_text('utf8'))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(counts, dict):
        return {}
    return {name: n for name, n in counts.items() if _is_count(n)}


def judged_history(start: Path, history: History) -> History:
    """Put the curves that the log's verdicts came from into what was logged.

    Args:
        start: The folder of the last start. Without curves, as of an older version, the
            history is returned as it is.
        history: Its scalars, counted as this start does. They go on after the
            iteration at which the curves were saved, that of the last validation.
    """
    if not (start / CURVES).is_file():
        return history
    judged = dict(history)
    try:
        saved = json.loads((start / CURVES).read_text('utf8'))
        for name, curve in saved['curves'].items():
            points = [
                (at, float(_limited(value)))
                for at, value in curve
                if _is_count(at) and type(value) in (int, float)
            ]
            later = history.get(name, [])
            points += [each for each in later if each[0] > saved['iteration']]
            judged[name] = sorted(points)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return history
    return {name: points for name, points in judged.items() if points}


def read_history(work_dir: str | Path, iters_per_epoch: int | None = None) -> History:
    """Read what MMEngine's ``LocalVisBackend`` has written of a run.

    A run that was resumed has one folder per start. Values that a later start
    computed again replace those of the earlier one. A start from scratch in the same
    work_dir replaces all of them. Where a start had other batches, earlier iterations
    are counted as its own: an epoch stays an epoch.

    Args:
        work_dir: The folder that holds ``TIME/vis_data/scalars.json``. The run may
            still be writing to it.
        iters_per_epoch: Count iterations as a start with so many would. Defaults to
            None: as the last start that logged something.

    Returns:
        Scalars by name, each a list of (iteration, value). MMEngine counts
        validation in epochs; its values get the iteration of the last training
        record before them. Empty if there is no training record.
    """
    history: History = {}
    per_epoch = None
    for folder in run_starts(work_dir):
        records = _read_records(folder / _SCALARS)
        start = next(record['iter'] for record in records if 'iter' in record)
        before, per_epoch = per_epoch, read_counts(folder).get('iters_per_epoch')
        history = {
            name: [point for point in points if point[0] < start]
            for name, points in _rescaled(history, before, per_epoch).items()
        }
        now = max((points[-1][0] for points in history.values() if points), default=0)
        for record in records:
            # A step of validation is an epoch, which is at most the iteration, or,
            # without epochs, the iteration itself.
            now = record['iter'] if 'iter' in record else max(now, record['step'])
            for name, value in record.items():
                if name in _COUNTERS or ('iter' not in record and name in _TIMES):
                    continue
                history.setdefault(name, []).append((now, float(value)))
    history = _rescaled(history, per_epoch, iters_per_epoch)
    return {name: points for name, points in history.items() if points}


def rescaled(step: int, before: int | None, now: int | None) -> int:
    """Convert an iteration between two epoch lengths; unchanged if one is unknown."""
    return round(step * now / before) if before and now else step


def _rescaled(history: History, before: int | None, now: int | None) -> History:
    return {
        name: [(rescaled(at, before, now), value) for at, value in points]
        for name, points in history.items()
    }


def _read_records(path: Path) -> list[dict[str, float]]:
    """Read the records; skip values that are not numbers and truncated lines."""
    records = []
    for line in path.read_text(errors='replace').splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            numbers = {
                name: _limited(value)
                for name, value in record.items()
                if type(value) in (int, float)
                and (name not in _COUNTERS or _is_count(value))
            }
            numbers.setdefault('step', numbers.get('iter', 0))
            records.append(numbers)
    return records


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _limited(value: float) -> float:
    if abs(value) > _LARGEST:
        return math.inf if value > 0 else -math.inf
    return value


def _began(start: Path) -> tuple[float, str]:
    """When a start began, to sort by.

    Folders are named by the local time, which goes back when summer ends or the
    machine's time zone changes. So ``ReportHook`` counts seconds since 1970.
    """
    seconds = read_counts(start).get('started', 0)
    if not seconds and (time := start_time(start)):
        return time.timestamp(), start.name
    return seconds, start.name


def _resumed(folder: Path) -> bool:
    """Whether a start went on from a checkpoint, by its config."""
    # Saved with format_python_code=False, it has no line of this entry alone.
    return start_config(folder).get('resume') is True
