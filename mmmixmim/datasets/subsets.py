"""Choose a few labelled images of each class."""

from __future__ import annotations

import numpy as np

from mmmixmim.validation import UserError


def sample_per_class(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Draw ``count`` indices of each class at random.

    Args:
        labels: Integer label of each image, (N, ).
        count: Number of images to keep of each class.
        seed: Seed of the draw. With the same seed a larger count keeps what a
            smaller one does. Defaults to 0.

    Returns:
        The indices, sorted, (classes * count, ).

    Raises:
        ValueError: If a class has fewer images than ``count``.
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
