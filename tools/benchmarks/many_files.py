"""Measure start-up and memory of a dataset with millions of file names.

The names are made up and no file is read: this measures MMEngine's list of samples,
which loader processes share, and our cache of the names.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from pathlib import Path

from mmmixmim.datasets import ImageFolder
from mmmixmim.datasets.file_list import _read, _write
from mmmixmim.runtime import one_line_errors, positive_int


class _Named(ImageFolder):
    """A folder with these names."""

    names: list[str] = []

    def _find_samples(self) -> list[str]:
        return self.names


def memory(key: str) -> float:
    """Memory of this process in MB: 'Rss', 'Private_Dirty', ..."""
    text = Path('/proc/self/smaps_rollup').read_text()
    return int(re.search(rf'^{key}:\s+(\d+) kB', text, re.M)[1]) / 1e3


def visit(dataset: _Named, pipe) -> None:
    """Look up samples, as a loader process does; send how much memory that took."""
    before = memory('Private_Dirty')
    for i in range(0, len(dataset), max(1, len(dataset) // 100_000)):
        dataset.get_data_info(i)
    pipe.send(memory('Private_Dirty') - before)


def clock() -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    return time.perf_counter(), time.process_time()


@one_line_errors()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--files',
        type=positive_int,
        default=5_000_000,
        help='number of file names (5,000,000)',
    )
    args = parser.parse_args()
    names = [f'part_{i // 1000:05}/image_{i:09}.jpg' for i in range(args.files)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder, 'files.list')
        _write(cache, folder, {}, names)
        start = clock()
        read = _read(cache, folder)
        took = [end - begin for begin, end in zip(start, clock(), strict=True)]
        assert read == names
        size = cache.stat().st_size / 1e6
        print(f'read names from the cache: {took[0]:.1f} s, {took[1]:.1f} CPU s, '
              f'{size:.0f} MB')  # fmt: skip
        del read
        _Named.names = names
        start = clock()
        dataset = _Named(folder)
        took = [end - begin for begin, end in zip(start, clock(), strict=True)]
        print(f'list of samples: {took[0]:.1f} s, {took[1]:.1f} CPU s, '
              f'{dataset.data_bytes.nbytes / 1e6:.0f} MB')  # fmt: skip
    fork = multiprocessing.get_context('fork')
    for worker in range(2):
        here, there = fork.Pipe()
        process = fork.Process(target=visit, args=(dataset, there))
        process.start()
        print(f'loader process {worker}: {here.recv():.0f} MB of its own')
        process.join()


if __name__ == '__main__':
    main()
