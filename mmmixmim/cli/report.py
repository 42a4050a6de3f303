"""Write the report of runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from mmmixmim.validation import MissingDependencyError


def write_report(runs: Sequence[Path], out: Path | None = None) -> Path:
    """Write a page about one run or several.

    Args:
        runs: Folders of runs.
        out: File. Defaults to ``report.html`` in the first folder.

    Raises:
        MissingDependencyError: If a package that reports need is missing.
    """
    try:
        with redirect_stdout(io.StringIO()):  # mmpretrain prints on import
            from mmmixmim.visualization import report
    except ImportError as error:
        raise MissingDependencyError(
            f'reports cannot be written ({error}): install what is missing with pip.'
        ) from error
    return report.write_report(list(runs), out)


def print_report(run: Path) -> None:
    """Write the report at the end of a run, and print where it is."""
    try:
        print(f'Report          {write_report([run])}')
    except MissingDependencyError as error:
        print(f'No report: {error}')
