"""Rank, spread and dead channels of an encoder's features, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmmixmim.log import warn
from mmmixmim.registry import METRICS


def feature_health(features: Tensor) -> dict[str, float]:
    """Measure whether features of different images differ.

    Args:
        features: Of each image, (N, C).

    Returns:
        ``rank``, the effective rank, from 1 to the smaller of N and C: the exponential
        of the entropy of the singular values, as RankMe (arXiv 2210.02885), but of the
        features less their mean, which is large in masked modelling and would hide the
        rest.
        ``std``, the standard deviation over the images of L2-normalised features, mean
        over channels, times the root of C: from 0 (all alike) to about 1 (spread over
        the sphere; SimSiam, arXiv 2011.10566).
        ``dead``, the share of channels whose deviation over the images is below 0.1 %
        of the features' root mean square. If all are dead, the rank is 1.
        All are NaN if a feature is not finite.
    """
    features = features.double()
    if not features.isfinite().all():
        return dict.fromkeys(('rank', 'std', 'dead'), float('nan'))
    scale = features.square().mean().sqrt()
    dead = (features.std(0, correction=0) <= 1e-3 * scale).double().mean()
    unit = torch.nn.functional.normalize(features, dim=1)
    std = unit.std(0, correction=0).mean() * features.shape[1] ** 0.5
    rank = 1.0
    if dead < 1:
        rows = features - features.mean(0)
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        values = torch.linalg.eigvalsh(rows @ rows.T).clamp(min=0).sqrt()
        shares = values / values.sum() + 1e-7
        rank = (-(shares * shares.log()).sum()).exp()
    return dict(rank=float(rank), std=float(std), dead=float(dead))


@METRICS.register_module()
class FeatureHealth(BaseMetric):
    """Effective rank, spread and dead channels of the features of each stage.

    Reports ``features/rank_stageN``, ``features/std_stageN`` and
    ``features/dead_stageN``, N from 1, see :func:`feature_health`. Features are those
    of plain images, pooled over the map.

    Args:
        min_images: With fewer images nothing is reported, and a line of the log says
            so. The rank is below their number: compare ranks of equally many images
            only. Defaults to 16.
        **kwargs: Arguments of MMEngine's ``BaseMetric``.
    """

    default_prefix = 'features'

    def __init__(self, min_images: int = 16, **kwargs) -> None:
        super().__init__(**kwargs)
        self.min_images = min_images
        self.said = False

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the features of each group."""
        self.results += [
            [stage.cpu() for stage in each['features']] for each in data_samples
        ]

    def compute_metrics(self, results: list[list[Tensor]]) -> dict[str, float]:
        """Measure each stage."""
        stages = [torch.cat(stage) for stage in zip(*results, strict=True)]
        images = len(stages[0]) if stages else 0
        if images < self.min_images:
            if not self.said:
                warn(
                    f'FeatureHealth needs at least {self.min_images} held-out images '
                    f'and got {images}, so ranks are not measured: hold out more.'
                )
            self.said = True
            return {}
        return {
            f'{name}_stage{number}': value
            for number, features in enumerate(stages, start=1)
            for name, value in feature_health(features).items()
        }
