"""Images that come from Python: lists of paths, datasets and iterables."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from mmmixmim.datasets.samples import as_sample
from mmmixmim.validation import MissingFileError, UserError, plural

STORED = 'from_python'  # folder of a run for the images of iterables


def describe(data: object) -> str:
    """Say what was given, in the same words for the same data.

    Returns:
        The absolute path of a file or folder; else type and length.

    Raises:
        UserError: If it can hold no images.
    """
    if isinstance(data, (str, Path)):
        return str(Path(data).expanduser().absolute())
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
    if not hasattr(data, '__len__'):
        return name
    return f'{name} of {plural(len(data), "item")}'


def is_dataset(data: object) -> bool:
    """Whether the items have an index, and are no list of paths."""
    if isinstance(data, (str, Path)) or is_paths(data):
        return False
    return hasattr(data, '__len__') and hasattr(data, '__getitem__')


def is_paths(data: object) -> bool:
    """Whether it is a list of paths."""
    return isinstance(data, (list, tuple)) and all(
        isinstance(item, (str, Path)) for item in data
    )


def list_files(data: Iterable, folder: Path) -> list[Path]:
    """List the images of an iterable, those that are no files after writing them.

    An iterable can neither be held out from nor continued in the middle. So its images
    are written once, as ``.npy`` files that keep all values.

    Args:
        data: Paths, or images as in :func:`mmmixmim.datasets.samples.as_sample`.
        folder: Gets the files. What is there is removed.

    Raises:
        MissingFileError: If a path leads nowhere.
        UserError: If it yields something else, or more than half of the free disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    files, written = [], 0
    try:
        for number, item in enumerate(data):
            sample = as_sample(item)
            if 'mask' in sample:
                raise UserError(
                    'The iterable yields masks, which are read from datasets only: '
                    'give it a length and an index.'
                )
            if 'img_path' in sample:
                file = Path(sample['img_path']).expanduser().absolute()
                if not file.is_file():
                    raise MissingFileError(f'There is no image file {str(file)!r}.')
            else:
                folder.mkdir(parents=True, exist_ok=True)
                file = folder.absolute() / f'{number:08}.npy'
                np.save(file, sample['img'], allow_pickle=False)
                written += file.stat().st_size
                if number % 100 == 0 and written > shutil.disk_usage(folder).free:
                    raise UserError(
                        f'The iterable has yielded {number + 1} images, which take '
                        f'half of the free disk of {str(folder)!r}: choose another '
                        'out, or pass a dataset with length and index, which is not '
                        'copied.'
                    )
            files.append(file)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return files
