"""Find labelled images and split them for training and validation."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path

import numpy as np

from mmmixmim.runtime.files import replace_file
from mmmixmim.validation import UserError

from .image_files import Skipped, find_images
from .tables import check_paths, read_columns

PARTS = ('train', 'val')
# What people call the parts, as in seg_train or val2017.
_PART = re.compile(
    '(?<![a-z])'
    '(train|training|val|valid|validation|dev|eval|evaluation|test|testing)'
    '(?![a-z])'
)


@dataclass
class Labelled:
    """Labelled images.

    Attributes:
        files: Paths of the images.
        labels: Index into ``classes`` of each image.
        classes: Names of the classes, sorted.
        parts: 'train' or 'val' of each image; None if the data have no split.
    """

    files: list[Path]
    labels: list[int]
    classes: list[str]
    parts: list[str] | None

    def part(self, name: str) -> list[tuple[Path, int]]:
        """Files and labels of a part."""
        rows = zip(self.files, self.labels, self.parts, strict=True)
        return [(file, label) for file, label, part in rows if part == name]

    def write(self, folder: Path) -> None:
        """Write ``train.txt`` and ``val.txt`` for mmpretrain's ``CustomDataset``."""
        for name in PARTS:
            lines = [f'{file} {label}\n' for file, label in self.part(name)]
            replace_file(folder / f'{name}.txt', ''.join(lines))


def find_labelled(data: Path, skipped: Skipped | None = None) -> Labelled:
    """Find the images and labels of a folder or a table.

    Args:
        data: A folder with a folder of images for each class, or with such folders
            below ``train`` and ``val``. Or a CSV or Parquet file with the columns
            ``path`` and ``label`` and optionally ``part`` (``train`` or ``val``); paths
            are relative to the file, and repeated lines count once.
        skipped: Gets the files of a folder that have other endings than images.
            Defaults to None: they are not kept.

    Raises:
        UserError: If labels are missing, a table has an image with two labels or parts,
            or the folders are parts of other names.
    """
    if data.is_file():
        rows = _read_table(data)
    else:
        rows = _read_folders(data, skipped)
    classes = sorted({label for _, label, _ in rows})
    numbers = {name: number for number, name in enumerate(classes)}
    parts = [part for *_, part in rows]
    if any(parts) and not all(parts):
        raise UserError(
            f'{str(data)!r} says train or val for some images only: say it for all, or '
            'for none.'
        )
    return Labelled(
        [path for path, *_ in rows],
        [numbers[label] for _, label, _ in rows],
        classes,
        parts if any(parts) else None,
    )


def labelled_folder_of(folder: Path) -> Path | None:
    """Find the labelled images of which a folder holds those to train on.

    Returns:
        The folder that holds this one, ``train``, and ``val``, with the same classes;
        None if there is none.
    """
    parts = [folder, folder.parent / 'val']
    if folder.name != 'train' or not all(part.is_dir() for part in parts):
        return None
    train, val = ({x.name for x in part.iterdir() if x.is_dir()} for part in parts)
    return folder.parent if train and train == val else None


def split(labelled: Labelled, share: float = 0.2, seed: int = 0) -> Labelled:
    """Split each class at random.

    Args:
        labelled: Images without a split.
        share: Share of each class for validation, at least one image. Defaults to
            0.2.
        seed: Seed. Defaults to 0.

    Raises:
        UserError: As :func:`check_counts`.
    """
    if not isinstance(share, Real) or not 0 < share < 1:
        raise UserError(
            'The share for validation (val_share, --val-share) must be above 0 and '
            f'below 1, got {share!r}.'
        )
    labels = np.array(labelled.labels)
    parts = np.full(len(labels), 'train')
    for label in range(len(labelled.classes)):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng([seed, label]).permutation(members)
        count = max(1, round(share * len(members)))
        parts[members[:count]] = 'val'
    return replace(labelled, parts=parts.tolist())


def check_counts(labelled: Labelled) -> None:
    """Raise unless each of two or more classes has images in both parts.

    Raises:
        UserError: It names the class and its counts.
    """
    names = labelled.classes
    if len(names) < 2:
        raise UserError(
            f'The data have one class, {names[0]!r}: a classifier needs two or more. '
            'Expected one folder for each class.'
        )
    counts = {
        part: Counter(label for _, label in labelled.part(part)) for part in PARTS
    }
    for label, name in enumerate(names):
        found = {part: counts[part][label] for part in PARTS}
        if not all(found.values()):
            raise UserError(
                f'The class {name!r} has {found["train"]} images to train on and '
                f'{found["val"]} to validate: it needs at least one of each. '
                'Add images, or leave the class out.'
            )


def _read_folders(data: Path, skipped: Skipped | None) -> list[tuple[Path, str, str]]:
    files = find_images(data, skipped=skipped)
    top = {file.relative_to(data).parts[0] for file in files}
    has_parts = {'train', 'val'} <= top
    if has_parts and top - {'train', 'val', 'test'}:
        odd = min(top - {'train', 'val', 'test'})
        raise UserError(
            f'{str(data)!r} has train and val, and {odd!r} beside them: move it '
            'into one of them, or away.'
        )
    if not has_parts:
        _check_no_parts(data, top)
    rows = []
    for file in files:
        names = file.relative_to(data).parts
        part = names[0] if has_parts else ''
        below = names[1:] if has_parts else names
        if part == 'test':
            continue
        if len(below) < 2:
            raise UserError(
                f'{str(file)!r} is in no folder of a class: expected one folder for '
                'each class, or a .csv or .parquet file with the columns path and '
                'label.'
            )
        rows.append((file.absolute(), below[0], part))
    return rows


def _check_no_parts(data: Path, top: set[str]) -> None:
    """Raise if the folders of classes have names of parts, alike but for that word."""
    names = [name.lower() for name in top]
    rest = {_PART.sub('', name) for name in names}
    if not all(map(_PART.search, names)) or len(rest) > 1:
        return
    if len(top) > 1 or rest == {''}:  # train_station alone is a class
        raise UserError(
            f'{str(data)!r} has {" and ".join(sorted(top))}, which are no classes: '
            'expected train and val, with a folder for each class in both. Rename or '
            'merge the folders, or name one of them, of which some images are drawn '
            'for validation.'
        )


def _read_table(file: Path) -> list[tuple[Path, str, str]]:
    found = read_columns(file, ['path', 'label'], ['part'])
    parts = found.get('part', [''] * len(found['path']))
    rows = list(zip(found['path'], found['label'], parts, strict=True))
    # The first line of a CSV file has the names of the columns.
    word, first = ('Row', 1) if file.suffix.lower() == '.parquet' else ('Line', 2)
    for number, (_, label, part) in enumerate(rows, first):
        if not label:
            raise UserError(f'{word} {number} of {str(file)!r} has no label.')
        if part not in ('', *PARTS):
            raise UserError(
                f'{word} {number} of {str(file)!r} has the part {part!r}, expected '
                'train or val.'
            )
    paths = check_paths(file, [file.parent / path for path, *_ in rows])
    seen = {}  # path without dots -> its first number and row
    for number, (path, row) in enumerate(zip(paths, rows, strict=True), first):
        row = (path, *row[1:])
        before, same = seen.setdefault(os.path.normpath(path), (number, row))
        if row[1:] != same[1:]:
            what = 'labels' if row[1] != same[1] else 'parts'
            raise UserError(
                f'{word}s {before} and {number} of {str(file)!r} give {str(path)!r} '
                f'two {what}: keep one of them.'
            )
    # An image that is repeated would be drawn for training and for validation.
    return [row for _, row in seen.values()]
