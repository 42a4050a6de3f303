"""Subsets of datasets: evenly spaced, or balanced over classes."""

from __future__ import annotations

import numpy as np

from mmmixmim.validation import UserError


def evenly_spaced(total: int, count: int) -> list[int]:
    """Indices of ``count`` items out of ``total``, of all if there are fewer."""
    count = min(total, count)
    return [i * total // count for i in range(count)]


def sample_per_class(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Sample ``count`` images of each class at random, without replacement.

    Args:
        labels: Integer label of each image, (N, ).
        count: Images per class.
        seed: Random seed. For a given seed, a larger sample contains every smaller
            one. Defaults to 0.

    Returns:
        Sorted indices into ``labels``, (num_classes * count, ).

    Raises:
        UserError: If ``count`` is not positive or exceeds the size of a class.
    """
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if not 0 < count <= len(members):
            raise UserError(
                f'Cannot draw {count} images of class {label}, which has '
                f'{len(members)}: choose a number from 1 to {len(members)}.'
            )
        rng = np.random.default_rng([seed, int(label)])
        chosen.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(chosen))
