"""How well a linear classifier reads the frozen features of an encoder."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.datasets.subsets import sample_per_class
from mmmixmim.validation import MissingDependencyError


@torch.no_grad()
def extract_features(
    model: nn.Module, dataloader: DataLoader
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and labels of a labelled dataset.

    Args:
        model: An mmpretrain ``ImageClassifier``. It is put in evaluation mode.
        dataloader: Loader of one of mmpretrain's labelled datasets.

    Returns:
        Features (N, C) of the model's neck, and labels (N, ).
    """
    model.eval()
    features, labels = [], []
    for batch in dataloader:
        data = model.data_preprocessor(batch)
        features.append(model.extract_feat(data['inputs'], stage='neck')[-1].cpu())
        labels += [int(sample.gt_label) for sample in data['data_samples']]
    return torch.cat(features).float().numpy(), np.array(labels)


def linear_probe(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    samples_per_class: int | None = None,
    seed: int = 0,
) -> float:
    """Accuracy of logistic regression on standardised features.

    Args:
        train: Features (N, C) and labels (N, ) to learn from.
        test: Features (M, C) and labels (M, ) to score.
        samples_per_class: Number of labels to learn from in each class.
            Defaults to None: all.
        seed: Seed of the choice of those labels. Defaults to 0.

    Returns:
        Top-1 accuracy in percent.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingDependencyError(
            'The linear probe needs scikit-learn: run `pip install scikit-learn`.'
        ) from error
    features, labels = train
    if samples_per_class is not None:
        chosen = sample_per_class(labels, samples_per_class, seed)
        features, labels = features[chosen], labels[chosen]
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    classifier.fit(features, labels)
    return 100 * classifier.score(*test)
