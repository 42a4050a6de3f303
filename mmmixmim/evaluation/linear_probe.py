"""Linear classification of the frozen features of an encoder."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.datasets.subsets import sample_per_class
from mmmixmim.runtime.entries import datasets_of
from mmmixmim.validation import MissingDependencyError


def labelled_loaders(cfg: Config) -> tuple[DataLoader, DataLoader]:
    """Build loaders of the training and validation images, without augmentation.

    Args:
        cfg: Config whose ``train_dataloader`` and ``val_dataloader`` hold labelled
            mmpretrain datasets with a ``pipeline``, or wrappers of them. It is not
            changed. Its default scope must be active.

    Returns:
        Loaders of the training and of the validation dataset. Both use the pipeline,
        batch size and sampler of ``val_dataloader``.
    """
    test = cfg.val_dataloader
    train = deepcopy(test)
    train.dataset = deepcopy(cfg.train_dataloader.dataset)
    _, images = next(datasets_of(test, ''))
    for _, dataset in datasets_of(train, ''):
        dataset.pipeline = images.pipeline
    return Runner.build_dataloader(train), Runner.build_dataloader(test)


@torch.no_grad()
def extract_features(
    model: nn.Module, dataloader: DataLoader
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the pooled features and collect the labels of a dataset.

    Args:
        model: An mmpretrain ``ImageClassifier``, or a model that is being pretrained.
            It is switched to evaluation mode.
        dataloader: Dataloader of a labelled mmpretrain dataset.

    Returns:
        Output of a classifier's neck, or the last map pooled, float32 (N, C), and
        labels (N, ). Images without a label are left out.
    """
    model.eval()
    features, labels = [], []
    for batch in dataloader:
        data = model.data_preprocessor(batch)
        found = [int(sample.get('gt_label', -1)) for sample in data['data_samples']]
        known = [label >= 0 for label in found]
        if any(known):
            features.append(_pooled(model, data['inputs'][known]).float().cpu())
            labels += [label for label in found if label >= 0]
    if not features:
        return np.zeros((0, 0), np.float32), np.zeros(0, int)
    return torch.cat(features).numpy(), np.array(labels)


def _pooled(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    if isinstance(model, BaseSelfSupervisor):
        maps = model.extract_feat(inputs)[-1]
        return maps.flatten(2).mean(2) if maps.ndim == 4 else maps
    return model.extract_feat(inputs, stage='neck')[-1]


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
