"""Render the report of runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mmmixmim.runtime import replace_file
from mmmixmim.validation import UserError
from mmmixmim.version import __version__

from .charts import draw_key, draw_panel
from .facts import facts_of, is_pretraining, progress, step_name
from .next_steps import next_steps, placeholders
from .panels import panels_of, panels_of_all
from .run import Picture, RecordedRun, read_run

# Pictures of a name that are shown: the first, the last and some between.
_MAX_PICTURES = 6
_ROWS = 12


def write_report(
    runs: str | Path | Sequence[str | Path], out: str | Path | None = None
) -> Path:
    """Write the report of one or several runs.

    Args:
        runs: The work_dir of a run, or several.
        out: Output file. Missing parent folders are created. Defaults to None:
            ``report.html`` in the (first) run's folder.

    Returns:
        The file. It appears at once, never half-written.

    Raises:
        MissingFileError: If a folder does not exist.
        UserError: If a folder holds no run, or a run without scalars; or if ``out`` is
            a folder.
    """
    runs = [runs] if isinstance(runs, (str, Path)) else list(runs)
    file = Path(out or Path(runs[0], 'report.html'))
    if file.is_dir():
        raise UserError(f'{str(file)!r} is a folder: name a file, such as report.html.')
    replace_file(file, render_report(runs), given=bool(out))
    return file


def render_report(runs: Sequence[str | Path]) -> str:
    """Render the report of one run, or of several side by side.

    Args:
        runs: Their work_dirs. They may still go on.

    Returns:
        HTML with everything inside: no script, no request.

    Raises:
        MissingFileError: If a folder does not exist.
        UserError: If there is no folder, a folder holds no run, or a run without
            scalars.
    """
    if not runs:
        raise UserError('no run given: give the work_dir of at least one run.')
    runs = [read_run(folder) for folder in runs]
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=str(run.folder)) for run in runs]
    environment = Environment(
        loader=PackageLoader('mmmixmim.visualization.report', '.'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals.update(
        data_uri=_data_uri,
        draw_key=draw_key,
        draw_panel=draw_panel,
        facts_of=facts_of,
        is_pretraining=is_pretraining,
        next_steps=next_steps,
        panels_of=panels_of,
        pictures_of=_pictures,
        placeholders=placeholders,
        progress=progress,
        table_of=_table,
        step_name=step_name,
    )
    return environment.get_template('report.html.j2').render(
        runs=runs,
        comparison=panels_of_all(runs) if len(runs) > 1 else [],
        different_facts=_different_facts(runs),
        differences=_differences(runs),
        now=datetime.now(),
        version=__version__,
    )


def _data_uri(path: Path) -> str:
    """Encode a picture as JPEG, which takes a fraction of the space, into a URI."""
    file = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert('RGB').save(file, 'JPEG', quality=85, subsampling=0)
    return f'data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}'


def _pictures(run: RecordedRun) -> dict[str, list[Picture]]:
    """Pictures to show, by name."""
    named: dict[str, list[Picture]] = {}
    for picture in run.pictures:
        named.setdefault(picture.name, []).append(picture)
    return {name: _spread(pictures, _MAX_PICTURES) for name, pictures in named.items()}


def _spread(items: list, number: int) -> list:
    """Choose items at even distances, with the first and the last."""
    if len(items) <= number:
        return items
    return [items[round(i * (len(items) - 1) / (number - 1))] for i in range(number)]


def _table(run: RecordedRun) -> tuple[list[str], list[list[str]]]:
    """Values of the curves at some iterations: header and rows."""
    hidden = {'epoch', 'time', 'data_time', 'base_lr', 'memory'}
    hidden |= {'reconstruction/mean_loss'}  # always the same
    names = [name for name in run.history if name not in hidden]
    steps = [step for step, _ in run.history.get('reconstruction/loss', [])]
    if not steps:  # the training's; some models log no scalar of the name loss
        longest = max(run.history.values(), key=len)
        steps = [step for step, _ in run.history.get('loss', longest)]
    steps = _spread(steps, _ROWS)
    rows = []
    for step in steps:
        row = [str(step)]
        for name in names:
            past = [value for at, value in run.history[name] if at <= step]
            row.append(f'{past[-1]:.4g}' if past else '')
        rows.append(row)
    return ['iteration', *names], rows


def _different_facts(runs: list[RecordedRun]) -> dict[str, list[str]]:
    """Facts that differ between runs, without those that say when and where."""
    skipped = {'Started', 'Speed', 'Checkpoints', 'Length'}
    return _that_differ([facts_of(run) for run in runs], skipped, '')


def _differences(runs: list[RecordedRun]) -> dict[str, list[str]]:
    """Config entries that differ between runs."""
    # Where the run is, not what it does.
    skipped = {'work_dir', 'experiment_name', 'resume'}
    return _that_differ([_flatten(run.config) for run in runs], skipped, 'not set')


def _that_differ(
    tables: list[dict[str, str]], skipped: set[str], missing: str
) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for each in tables for key in each if key not in skipped)
    table = {key: [each.get(key, missing) for each in tables] for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _flatten(node: object, prefix: str = '') -> dict[str, str]:
    """Values of a config by dotted key, as text. Only lists of dicts have entries."""
    if isinstance(node, list) and node and all(isinstance(each, dict) for each in node):
        node = {str(i): each for i, each in enumerate(node)}
    if not isinstance(node, dict) or not node:
        return {prefix: str(node)}
    flat = {}
    for name, value in node.items():
        flat |= _flatten(value, f'{prefix}.{name}' if prefix else name)
    return flat
