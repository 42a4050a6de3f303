"""The loss of pretraining on held-out images."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from mmmixmim.registry import METRICS


@METRICS.register_module()
class ReconstructionLoss(BaseMetric):
    """Mean reconstruction loss over groups of images, ``reconstruction/loss``.

    Every group counts the same, whatever the batch size and the number of processes.

    Args:
        *args: Arguments of MMEngine's ``BaseMetric``.
        **kwargs: See ``args``.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the loss of each group."""
        self.results += [float(each['reconstruction_loss']) for each in data_samples]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average the losses."""
        return dict(loss=sum(results) / len(results)) if results else {}
