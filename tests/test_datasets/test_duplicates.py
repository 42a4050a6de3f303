"""Which files have the same content."""

import numpy as np

from mmmixmim.datasets.duplicates import find_duplicates


def test_files_of_one_size_are_told_apart(tmp_path):
    """Uncompressed files: b is a copy of a, c differs in its first pixel only."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    for name in 'abc':
        np.save(tmp_path / f'{name}.npy', pixels)
    pixels[0, 0] += 1
    np.save(tmp_path / 'c.npy', pixels)
    files = [tmp_path / f'{name}.npy' for name in 'abc']
    assert find_duplicates(files) == [tmp_path / 'b.npy']
