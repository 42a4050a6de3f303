"""Read lists of images: CSV and Parquet files, and plain lists."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mmmixmim.validation import MissingDependencyError, MissingFileError, UserError

LISTS = ('.csv', '.parquet', '.txt')  # endings of lists of images


def read_lines(file: str | Path) -> list[str]:
    """Read the lines of a list in UTF-8, without blanks around them.

    Raises:
        UserError: If it is no UTF-8.
    """
    try:
        text = Path(file).read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{str(file)!r} is not UTF-8: save it as UTF-8.') from error
    return [line.strip() for line in text.splitlines()]


def read_columns(
    file: str | Path,
    needed: Sequence[str],
    optional: Sequence[str] = (),
    hint: str = '',
) -> dict[str, list[str]]:
    """Read columns of a table as text.

    Args:
        file: A Parquet file by its ending ``.parquet``, which takes pyarrow; else a CSV
            file with a header.
        needed: Names of columns.
        optional: Names of columns that may be missing. Defaults to none.
        hint: What to do if a column is missing, for the message. Defaults to ''.

    Returns:
        The columns that are there, without blanks around values; '' is no value.

    Raises:
        MissingDependencyError: If pyarrow is needed and not installed.
        UserError: If a column is missing, or the file cannot be read.
    """
    read = _read_parquet if str(file).lower().endswith('.parquet') else _read_csv
    names, columns = read(str(file), [*needed, *optional])
    for name in needed:
        if name not in names:
            raise UserError(
                f'{str(file)!r} has no column {name!r}, its columns are '
                f'{", ".join(names) or "none"}{hint}.'
            )
    return columns


def read_paths(file: Path) -> list[Path]:
    """Read the paths of a list: a table with a column ``path``, or one per line.

    Args:
        file: A ``.csv`` or ``.parquet`` file, or a text file.

    Raises:
        MissingFileError: If an image does not exist.
        UserError: If the list is empty, or has no column ``path``.
    """
    if file.suffix.lower() in ('.csv', '.parquet'):
        names = read_columns(file, ['path'])['path']
    else:
        names = [line for line in read_lines(file) if line]
    return check_paths(file, [file.parent / name for name in names])


def check_paths(file: Path, paths: list[Path]) -> list[Path]:
    """Return the paths of a list as absolute ones.

    Raises:
        MissingFileError: If an image does not exist.
        UserError: If there are none.
    """
    if not paths:
        raise UserError(f'{str(file)!r} lists no images.')
    for path in paths:
        if not path.is_file():
            raise MissingFileError(
                f'{str(file)!r} lists {str(path)!r}, which does not exist. Paths are '
                'relative to the list.'
            )
    return [path.absolute() for path in paths]


def _read_csv(file: str, wanted: list[str]) -> tuple[list[str], dict]:
    try:
        with open(file, encoding='utf-8-sig', newline='') as stream:
            reader = csv.DictReader(stream)
            names = list(reader.fieldnames or ())
            columns = {name: [] for name in wanted if name in names}
            for row in reader:
                for name, values in columns.items():
                    values.append((row[name] or '').strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{file!r} is no CSV file in UTF-8: {error}.') from error
    return names, columns


def _read_parquet(file: str, wanted: list[str]) -> tuple[list[str], dict]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingDependencyError(
            f'{file} needs pyarrow, which is not installed: run `pip install '
            'pyarrow`, or write a .csv file.'
        ) from error
    try:
        names = parquet.read_schema(file).names
        table = parquet.read_table(file, columns=[x for x in wanted if x in names])
    except ArrowException as error:
        raise UserError(f'{file} cannot be read: {error}.') from error
    return names, {
        name: ['' if x is None else str(x).strip() for x in table[name].to_pylist()]
        for name in table.column_names
    }
