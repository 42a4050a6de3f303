"""Images that come from Python: lists of paths, datasets and iterables."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from mmmixmim.datasets.samples import as_sample, has_mask
from mmmixmim.text import plural
from mmmixmim.validation import MissingFileError, UserError

STORED_FOLDER = 'from_python'  # folder of a run for the images of iterables


def describe(data: object) -> str:
    """Say what was given, in the same words for the same data.

    Returns:
        An address; the absolute path of a file or folder; else type and length.

    Raises:
        UserError: If it can hold no images.
    """
    if isinstance(data, (str, Path)):
        address = '://' in str(data)
        return str(data) if address else str(Path(data).expanduser().absolute())
    name = type(data).__name__
    if isinstance(data, DataLoader):
        raise UserError(
            'data is a DataLoader, whose batches are ready: pass its dataset '
            '(loader.dataset), since batch and crops are chosen here.'
        )
    if isinstance(data, Mapping) or not (is_dataset(data) or hasattr(data, '__iter__')):
        raise UserError(
            f'data must be a path, a list of paths, a dataset with length and index, '
            f'or an iterable of images, got a {name}.'
        )
    try:
        return f'{name} of {plural(len(data), "item")}'
    except TypeError:  # it has no length
        return name


def is_dataset(data: object) -> bool:
    """Whether the items have an index, and are no list of paths."""
    if isinstance(data, (str, Path)) or is_paths(data):
        return False
    if isinstance(data, IterableDataset):  # it may have a length, yet no index
        return False
    return hasattr(data, '__len__') and hasattr(data, '__getitem__')


def is_paths(data: object) -> bool:
    """Whether it is a list of paths."""
    return isinstance(data, (list, tuple)) and all(
        isinstance(item, (str, Path)) for item in data
    )


def store_images(data: Iterable, folder: Path) -> tuple[list[Path], list[Path]]:
    """Read an iterable once, and store the images that are not in files.

    Holding out images and continuing a run need an index, which an iterable lacks. So
    each image becomes a ``.npy`` file with the same values.

    Args:
        data: Paths, or images as in :func:`mmmixmim.datasets.samples.as_sample`.
        folder: Where to store them.

    Returns:
        All files, and those that were stored here.

    Raises:
        MissingFileError: If a path leads nowhere.
        UserError: If an item is no image, or all take more than half of the free disk.
    """
    files, stored, written = [], [], 0
    try:
        for number, item in enumerate(data):
            sample = as_sample(item)
            if has_mask(sample):
                raise UserError(
                    'The iterable yields masks, which are read from datasets only: '
                    'give it a length and an index.'
                )
            if 'img_path' in sample:
                file = _existing_file(sample['img_path'])
            else:
                folder.mkdir(parents=True, exist_ok=True)
                file = folder.absolute() / f'{number:08}.npy'
                stored.append(file)
                _save_array(file, sample['img'], number)
                written += file.stat().st_size
                if written > shutil.disk_usage(folder).free:
                    raise UserError(
                        f'The iterable has yielded {number + 1} images, which take '
                        f'half of the free disk of {str(folder)!r}: choose another '
                        'out, or pass a dataset with length and index, which is not '
                        'copied.'
                    )
            files.append(file)
    except BaseException:
        remove_stored(stored)
        raise
    return files, stored


def _existing_file(path: str | Path) -> Path:
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise MissingFileError(f'There is no image file {str(file)!r}.')
    return file


def _save_array(file: Path, pixels: np.ndarray, number: int) -> None:
    try:
        np.save(file, pixels, allow_pickle=False)
    except ValueError as error:
        raise UserError(
            f'Item {number} of the iterable is no array of numbers: {error}.'
        ) from error


def remove_stored(stored: list[Path]) -> None:
    """Remove what :func:`store_images` stored, and its folder if that is empty."""
    for file in stored:
        file.unlink(missing_ok=True)
    if stored and not any(stored[0].parent.iterdir()):
        stored[0].parent.rmdir()
