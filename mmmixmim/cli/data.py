"""Find and scan the images of a command, and say how a config loads them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from mmmixmim.datasets import measure_channels
from mmmixmim.datasets.image_files import Skipped, find_images, fingerprint
from mmmixmim.datasets.scan import Scan, readable_header, scan_images
from mmmixmim.datasets.tables import LISTS, read_paths
from mmmixmim.text import plural, printable
from mmmixmim.validation import MissingFileError

from .machine import FORKS
from .settings import Choices

# ImageNet's, of RGB images with values from 0 to 255.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
# Images whose channels are measured; more change mean and deviation little.
MEASURED = 500


class Source:
    """Where the images of a pretraining come from.

    Attributes:
        scan: What was found, as it was printed.
        note: What the config says about itself.
        has_weights: Whether the images bring masks along.
    """

    scan: Scan
    note = (
        'Written by `python -m mmmixmim pretrain`. To train it again elsewhere:\n'
        'mim train mmmixmim config.py --work-dir FOLDER'
    )
    has_weights = False

    def prepare(self, no_data: str | float | None, held_out: int) -> tuple[dict, dict]:
        """Measure the channels, and write what the config needs.

        Args:
            no_data: See :func:`mmmixmim.pretrain`.
            held_out: How many images are not trained on; of shards, of the first.

        Returns:
            The dataset to train on and that of the held-out images, without pipelines.
        """
        raise NotImplementedError

    def discard(self) -> None:
        """Remove what was stored for a run that is not to be."""


def list_images(data: Path, skipped: Skipped) -> tuple[list[Path], str]:
    """List the images of a folder or a list, and say what it is.

    Args:
        data: The folder or list.
        skipped: Gets the files of a folder that have other endings than images.
    """
    if data.is_file():
        ending = data.suffix.lower()
        if ending not in LISTS:
            raise MissingFileError(
                f'{str(data)!r} is a file, expected a folder of images, or a list of '
                'their paths (.csv, .txt or .parquet).'
            )
        files = read_paths(data)
        if ending == '.parquet':
            return files, 'a table'
        with data.open(encoding='utf-8-sig') as file:
            labels = 'label' in file.readline().strip().split(',')
        return files, 'a list with labels, which are not used' if labels else 'a list'
    files = find_images(data, skipped=skipped)
    folders = {file.relative_to(data).parts[0] for file in files if file.parent != data}
    if len(folders) > 1:
        return files, f'{len(folders)} folders, whose names are not used as labels'
    return files, 'a folder'


def cached_scan(data: Path, files: list[Path], cache: Path) -> Scan:
    """Scan the images, or read the scan of the same files back.

    Files that were unreadable are tried again: a package may have been missing.
    """
    scan = Scan.load(cache)
    if scan and (scan.root, scan.fingerprint) == (str(data), fingerprint(files)):
        unreadable = map(Path, scan.examples.get('unreadable', ()))
        if not any(map(readable_header, unreadable)):
            return scan
    with progress(len(files), 'Looking at the images') as advance:
        scan = scan_images(data, files, progress=advance)
    scan.save(cache)
    return scan


def print_scan(scan: Scan, kind: str, skipped: Skipped | None = None) -> None:
    """Print what was found, and what is odd but no reason to stop.

    Args:
        scan: What was found.
        kind: What the user named, in words.
        skipped: Files that were left out because of their ending. Defaults to None.
    """
    print(f'Data: {scan.root}, {kind}')
    if skipped and skipped.endings:
        print(f'  skipped {skipped}')
    if not scan.formats:
        return
    low, middle, high = scan.short_sides
    size = f', {scan.bytes / 1e6:,.1f} MB' if scan.bytes else ''
    looked = sum(scan.formats.values())
    if looked < scan.images:
        size += f', of which {looked:,} were looked at'
    formats = Counter(scan.formats).most_common()
    counted = ', '.join(f'{number:,} {name}' for name, number in formats)
    print(f'  {plural(scan.images, "image")}{size}: {counted}')
    spread = f' to {high} pixels, median {middle}' if low < high else ' pixels'
    print(f'  shorter side {low}{spread}')
    bits = ', '.join(
        f'{bits}-bit floats' if scan.floats.get(bits) == number else f'{bits}-bit'
        for bits, number in sorted(scan.bits.items())
    )
    if scan.floats and set(scan.formats) <= {'DCM', 'DICOM'}:
        bits += ', after slope and intercept'
    channels = ', '.join(map(str, sorted(scan.channels)))
    print(f'  channels {channels}; {bits}')
    if scan.unreadable:
        first = printable(scan.reason)
        print(f'  {scan.unreadable:,} left out, as unreadable. The first: {first}')
    copies = 'remove them, as copies may be both trained on and held out'
    for name, said, advice in (
        ('duplicates', 'with the same content as another one', f'; {copies}'),
        ('constant', f'of {scan.sampled} that were looked at without any contrast', ''),
    ):
        count = getattr(scan, name)
        if count:
            example = printable(scan.examples[name][0])
            print(f'  {count:,} {said}, such as {example}{advice}')


def measure(
    scan: Scan,
    images: Iterable[Path | np.ndarray],
    out: Path,
    no_data: str | float | None,
    masks: Iterable | None = None,
) -> None:
    """Measure the channels of images that are no ordinary pictures.

    Mean and deviation go to ``statistics.json`` in the folder of the run.
    """
    if scan.is_raster:
        # The scan has looked at some images only. Training counts what is unreadable,
        # but masks that don't fit are an error.
        measured = measure_channels(images, no_data, masks=masks, skip_unreadable=True)
        measured.save(out / 'statistics.json', given=False)


def load_transform(scan: Scan, chosen: Choices, no_data: str | None, **changes) -> dict:
    """Transform that loads a random resized crop; ``changes`` are more arguments."""
    load = dict(type='LoadRandomResizedCrop', scale=chosen.image_size)
    load['interpolation'] = 'bicubic'
    if scan.is_raster:
        load |= dict(type='LoadRasterCrop', num_channels=chosen.in_channels)
        if no_data is not None:
            load['no_data'] = no_data
    return load | changes


def central_crop(scan: Scan, chosen: Choices, no_data: str | None = None) -> dict:
    """Transform that loads the largest square in the middle, without draws."""
    square = dict(max_attempts=0, aspect_ratio_range=(1.0, 1.0))
    return load_transform(scan, chosen, no_data, **square)


def pack(weights: bool = False) -> dict:
    """Transform that packs the sample, if asked for with the weights of its pixels."""
    if not weights:
        return dict(type='PackInputs')
    return dict(type='PackInputs', algorithm_keys=('pixel_weight',))


def loader(
    chosen: Choices, dataset: dict, shuffle: bool | None = False, **entries
) -> dict:
    """Data loader of a config.

    Args:
        chosen: The settings.
        dataset: The dataset with its pipeline.
        shuffle: Whether to shuffle; None for a stream, which takes no sampler.
        **entries: More arguments of the loader.
    """
    sampler = dict(type='DefaultSampler', shuffle=shuffle)
    return dict(
        batch_size=chosen.batch_size,
        num_workers=chosen.workers,
        persistent_workers=chosen.workers > 0,
        pin_memory=True,
        **entries,
        sampler=None if shuffle is None else sampler,
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )


def start_method(workers: int) -> str | None:
    """How loader processes start where no runner decides it: as those of a runner.

    Python 3.14's own way would run scripts without ``__main__`` guard again.
    """
    return 'fork' if workers and FORKS else None


@contextmanager
def progress(count: int, label: str) -> Iterator[Callable[[], object]]:
    """A progress bar in a terminal, nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    steps = max(1, count // 100)
    with click.progressbar(length=count, label=label, update_min_steps=steps) as bar:
        yield lambda: bar.update(1)
