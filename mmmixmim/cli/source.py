"""The images of a pretraining: of files, a Python dataset, or shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import tee
from pathlib import Path

from mmmixmim.datasets.image_files import Skipped
from mmmixmim.datasets.masks import find_mask_suffix
from mmmixmim.datasets.raster_folder import mask_name
from mmmixmim.datasets.scan import get_sample, scan_dataset
from mmmixmim.datasets.subsets import evenly_spaced
from mmmixmim.runtime.files import replace_file
from mmmixmim.text import plural
from mmmixmim.validation import MissingFileError, UserError

from .data import MEASURED, Source, cached_scan, list_images, measure, print_scan
from .python_data import (
    STORED_FOLDER,
    describe,
    is_dataset,
    is_paths,
    remove_stored,
    store_images,
)
from .shards import Shards


class Files(Source):
    """Images in files.

    Args:
        name: What the user named.
        files: The files. One that is repeated counts once: it would be trained on and
            held out.
        kind: What the user named, in words.
        out: Folder of the run, which keeps the scan.
        root: The folder that holds these files and no other image. Defaults to None:
            there is none.
        masks: Folder of masks of these files. Defaults to None: there are none.
        skipped: Files that were left out because of their ending. Defaults to None.
        stored: Those of the files that were stored for this run. Defaults to none.

    Raises:
        UserError: If a mask is missing.
    """

    def __init__(
        self,
        name: str,
        files: list[Path],
        kind: str,
        out: Path,
        root: Path | None = None,
        masks: Path | None = None,
        skipped: Skipped | None = None,
        stored: Sequence[Path] = (),
    ) -> None:
        unique: dict[str, Path] = {}  # whole path -> the file
        for file in files:
            unique.setdefault(os.path.abspath(file), file)
        repeats, files = len(files) - len(unique), list(unique.values())
        self.files, self.out, self.root = files, out, root
        self.stored = stored
        self.masks, self.has_weights = masks, masks is not None
        if masks:
            self.mask_suffix = find_mask_suffix(Path(name), files, masks)
        self.scan = cached_scan(Path(name), files, out / 'scan.json')
        print_scan(self.scan, kind, skipped)
        if repeats:
            print(f'  {plural(repeats, "repeated path")} left out')
        if masks:
            print(f'  masks *{self.mask_suffix or ""} in {masks}, where 0 is no data')
            self.scan = replace(self.scan, as_arrays=True)

    def prepare(self, no_data: str | float | None, held_out: int) -> tuple[dict, dict]:
        """Measure the channels, and list the files if need be."""
        unreadable = set(self.scan.examples.get('unreadable', ()))
        files = [file for file in self.files if str(file) not in unreadable]
        names = [file.absolute() for file in files]
        kind = 'RasterFolder' if self.scan.is_raster else 'ImageFolder'
        dataset = dict(type=kind, data_root='')
        if self.root:
            dataset['data_root'] = str(self.root)
            names = [name.relative_to(self.root) for name in names]
        chosen = evenly_spaced(len(files), MEASURED)
        masks = None
        if self.masks:
            suffix = self.mask_suffix
            dataset |= dict(mask_root=str(self.masks), mask_suffix=suffix)
            masks = [self.masks / mask_name(name.as_posix(), suffix) for name in names]
            masks = [masks[i] for i in chosen]
        some = [files[i] for i in chosen]
        measure(self.scan, some, self.out, no_data, masks)
        if unreadable or not self.root:
            listed = self.out.absolute() / 'images.txt'
            replace_file(listed, ''.join(f'{name}\n' for name in names))
            dataset['ann_file'] = str(listed)
        return _split(dataset, held_out)

    def discard(self) -> None:
        """Remove what was stored for a run that is not to be."""
        remove_stored(self.stored)


class PythonDataset(Source):
    """Images of a dataset with length and index.

    Args:
        dataset: The dataset.
        out: Folder of the run, which keeps the scan.

    Raises:
        UserError: If an item is no image, or some of those looked at have no mask.
    """

    note = (
        'Written by mmmixmim.pretrain. The images came from Python, and a config holds '
        'none:\nthe same call repeats the run, and `mim train` cannot.'
    )

    def __init__(self, dataset: Sequence, out: Path) -> None:
        self.dataset, self.out = dataset, out
        self.scan = scan_dataset(describe(dataset), dataset)
        self.scan.save(out / 'scan.json')
        print_scan(self.scan, 'given in Python')
        self.has_weights = self._have_masks()

    def prepare(self, no_data: str | float | None, held_out: int) -> tuple[dict, dict]:
        """Measure the channels."""
        indices = evenly_spaced(len(self.dataset), MEASURED)
        samples = (get_sample(self.dataset, i) for i in indices)
        samples, again = tee(samples)
        images = (sample.get('img', sample.get('img_path')) for sample in samples)
        masks = (sample.get('mask', sample.get('mask_path')) for sample in again)
        measure(self.scan, images, self.out, no_data, masks)
        return _split(dict(type='WrappedDataset', dataset=self.scan.root), held_out)

    def _have_masks(self) -> bool:
        with_mask = self.scan.examples.get('with mask')
        without = self.scan.examples.get('without mask')
        if with_mask and without:
            raise UserError(
                f'{without[0].capitalize()} of the {self.scan.root} has no mask, but '
                f'{with_mask[0]} has one: give all items a mask, of ones where all '
                'pixels are data, or none.'
            )
        return with_mask is not None


def find_source(data: object, out: Path, masks: str | None = None) -> Source:
    """Find the images, look at them, and print what they are.

    Args:
        data: As in :func:`mmmixmim.pretrain`.
        out: Folder of the run.
        masks: Folder of masks. Defaults to None: there are none.

    Raises:
        UserError: If there are none, a folder holds both images and shards, or an item
            is no image.
    """
    path = Path(data).expanduser() if isinstance(data, (str, Path)) else None
    shards = path and not path.is_dir() and _names_shards(str(data))
    if masks and (path is None or path.is_file() or shards):
        raise UserError(
            f'--masks {masks!r} are for images of a folder, whose names they have, and '
            f'not for {describe(data)}. A Python dataset yields its own masks, and '
            'a table has a column for them in a config (ImageTable, mask_column).'
        )
    if is_dataset(data):
        return PythonDataset(data, out)
    if shards:
        return Shards(describe(data), out)
    if path:
        skipped = Skipped()
        try:
            files, kind = list_images(path, skipped)
        except MissingFileError:
            if masks or not any(path.glob('*.tar')):
                raise
            return Shards(describe(path), out)
        if path.is_dir() and not masks:
            _check_no_shards(path, files)
        root = path.absolute() if path.is_dir() else None
        masks = masks and Path(masks)
        return Files(str(path), files, kind, out, root, masks, skipped)
    folder = out / STORED_FOLDER
    print(f'Reading the {describe(data)}.', flush=True)
    files, stored = store_images(data, folder)
    kind = 'given in Python'
    if stored:
        kind = f'a Python iterable, stored in {folder}'
    elif not is_paths(data):
        kind = 'an iterable of paths'
    return Files(describe(data), files, kind, out, stored=stored)


def _names_shards(data: str) -> bool:
    """Whether a name is that of shards, which need not be files of this machine."""
    return '://' in data or data.endswith(('.tar', '.tar}', '.json'))


def _check_no_shards(folder: Path, files: list[Path]) -> None:
    tars = sorted(folder.glob('*.tar'))
    if tars and any(file.parent == folder for file in files):
        raise UserError(
            f'{str(folder)!r} holds images and tar files, such as {tars[0].name!r}: to '
            f'train on the shards, name them, as {str(tars[0])!r} or '
            f'{str(folder / "{000000..000009}.tar")!r}; to train on the images, move '
            'the tar files to another folder.'
        )


def _split(dataset: dict, held_out: int) -> tuple[dict, dict]:
    """Split a dataset of a config that can hold out images."""
    if held_out:
        dataset['held_out'] = held_out
    return dataset, dict(type=dataset['type'], part='held_out')
