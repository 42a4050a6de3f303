"""Linear classification of the frozen features of an encoder."""

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
    """Compute the pooled features and collect the labels of a dataset.

    Args:
        model: An mmpretrain ``ImageClassifier``. It is switched to evaluation mode.
        dataloader: Dataloader of a labelled mmpretrain dataset.

    Returns:
        Output of the model's neck, float32 (N, C), and labels (N, ).
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
    """Fit logistic regression to standardised features and return its accuracy.

    Args:
        train: Training features (N, C) and labels (N, ).
        test: Test features (M, C) and labels (M, ).
        samples_per_class: Size of a random class-balanced subset of the training
            data. Defaults to None: use all.
        seed: Seed of the subset. Defaults to 0.

    Returns:
        Top-1 accuracy on the test features, in percent.

    Raises:
        UserError: If a class has fewer samples than ``samples_per_class``.
        MissingDependencyError: If scikit-learn is not installed.
    """
    features, labels = train
    if samples_per_class is not None:
        chosen = sample_per_class(labels, samples_per_class, seed)
        features, labels = features[chosen], labels[chosen]
    return 100 * fit_linear_classifier(features, labels).score(*test)


def fit_linear_classifier(features: np.ndarray, labels: np.ndarray):
    """Fit logistic regression to standardised features.

    Args:
        features: (N, C).
        labels: (N, ).

    Returns:
        scikit-learn's pipeline of ``StandardScaler`` and ``LogisticRegression``.

    Raises:
        MissingDependencyError: If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingDependencyError(
            'The linear probe needs scikit-learn, which is not installed: run '
            '`pip install scikit-learn`.'
        ) from error
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    return classifier.fit(features, labels)
