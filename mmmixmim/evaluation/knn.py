"""Nearest-neighbour classification of the frozen features of an encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import normalize


@torch.autocast('cpu', enabled=False)  # whose features need float32
def knn(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    neighbours: int = 20,
) -> float:
    """Classify each test feature by its nearest training features.

    Neighbours by cosine vote with the weight exp(cosine / 0.07), as in arXiv
    1805.01978 and DINO.

    Args:
        train: Training features (N, C) and labels (N, ).
        test: Test features (M, C) and labels (M, ).
        neighbours: Number of neighbours, at most N. Defaults to 20.

    Returns:
        Top-1 accuracy on the test features, in percent.
    """
    features, queries = (
        normalize(torch.from_numpy(each[0]).float(), dim=1) for each in (train, test)
    )
    classes, labels = np.unique(train[1], return_inverse=True)
    neighbours = min(neighbours, len(features))
    similarity, nearest = (queries @ features.T).topk(neighbours)  # (M, neighbours)
    votes = torch.zeros(len(queries), len(classes))
    weights = (similarity / 0.07).exp()
    votes.scatter_add_(1, torch.from_numpy(labels)[nearest], weights)
    found = classes[votes.argmax(1).numpy()]
    return 100 * float((found == test[1]).mean())
