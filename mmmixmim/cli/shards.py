"""Images of a pretraining in WebDataset shards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from mmmixmim.datasets.samples import open_sample
from mmmixmim.datasets.scan import scan_shards
from mmmixmim.datasets.shards import (
    count_images,
    find_shards,
    indexed_images,
    read_shards,
    some_images,
)
from mmmixmim.text import plural
from mmmixmim.validation import UnreadableFileError

from .data import Source, measure, print_scan


class Shards(Source):
    """Images in shards, see :class:`~mmmixmim.datasets.ShardStream`.

    Args:
        name: The shards: a local folder, files or addresses with braces, or an index.
        out: Folder of the run, which keeps the scan and the held-out images.

    Raises:
        UserError: If there are none, or one is empty or cannot be read.
    """

    def __init__(self, name: str, out: Path) -> None:
        self.name, self.out = name, out
        self.shards = find_shards(name)
        print(f'Looking at {plural(len(self.shards), "shard")}.', flush=True)
        first, images, how = _count(self.shards)
        some = some_images(self.shards)
        self.scan = scan_shards(name, len(self.shards), images, some)
        self.scan.first_shard = first
        if not _is_remote(self.shards):
            self.scan.bytes = sum(Path(each).stat().st_size for each in self.shards)
        self.scan.save(out / 'scan.json')
        print_scan(self.scan, f'{plural(len(self.shards), "shard")}, {how}')
        print('  not checked: copies, and images that were not looked at')

    def prepare(self, no_data: str | float | None, held_out: int) -> tuple[dict, dict]:
        """Measure the channels, and write the held-out images to files."""
        folder = self.out.absolute() / 'held_out'
        try:
            if held_out:
                _unpack(self.shards[0], held_out, folder)
            measure(self.scan, _pixels(self.shards), self.out, no_data)
        except BaseException:  # the same command starts again
            shutil.rmtree(folder, ignore_errors=True)
            raise
        dataset = dict(type='ShardStream', shards=self.name)
        if not held_out:
            return dataset, {}
        kind = 'RasterFolder' if self.scan.is_raster else 'ImageFolder'
        dataset['held_out_shards'] = 1
        return dataset, dict(type=kind, data_root=str(folder))


def _count(shards: list[str]) -> tuple[int, int, str]:
    """Number of images in the first shard and in all, and how that is known."""
    if _is_remote(shards):
        first = sum(1 for _ in read_shards(shards[:1]))
    else:
        first = count_images(shards[0])
    count = indexed_images(shards)
    if count is not None:
        return first, count, 'with as many images as their index says'
    if not _is_remote(shards):
        count = first + sum(map(count_images, shards[1:]))
        return first, count, 'whose images were counted'
    return first, first * len(shards), 'assumed to be as large as the first'


def _unpack(shard: str, count: int, folder: Path) -> None:
    """Write the first images of a shard to files in a new folder."""
    shutil.rmtree(folder, ignore_errors=True)  # of a command that was killed
    folder.mkdir()
    for number, image in enumerate(islice(read_shards([shard]), count)):
        ending = Path(image['img_path']).suffix
        (folder / f'{number:06}{ending}').write_bytes(image['img_bytes'])


def _pixels(shards: list[str]) -> Iterator[np.ndarray]:
    """Pixels of some images; unreadable ones are counted by the scan."""
    for sample in some_images(shards):
        try:
            pixels = open_sample(sample).read()
        except UnreadableFileError:
            continue
        yield pixels


def _is_remote(shards: list[str]) -> bool:
    return any('://' in shard for shard in shards)
