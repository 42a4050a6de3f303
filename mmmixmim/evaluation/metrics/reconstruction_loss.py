"""The loss of pretraining on held-out images."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from mmmixmim.registry import METRICS


@METRICS.register_module()
class ReconstructionLoss(BaseMetric):
    """Mean reconstruction loss over groups of images, ``reconstruction/loss``.

    Where the model measures it, ``reconstruction/mean_loss`` is the loss of predicting
    the mean of each cell, on the same hidden cells. With normalised pixels it is about
    1, and less where cells are blank in images of one channel: their normalised pixels
    are 0. In RGB images those of a blank cell differ by channel.

    Every group counts the same, whatever the batch size and the number of processes.

    Args:
        *args: Arguments of MMEngine's ``BaseMetric``.
        **kwargs: See ``args``.
    """

    default_prefix = 'reconstruction'

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the losses of each group."""
        names = dict(loss='reconstruction_loss', mean_loss='mean_loss')
        self.results += [
            {name: float(each[key]) for name, key in names.items() if key in each}
            for each in data_samples
        ]

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Average the losses."""
        return {
            name: sum(each[name] for each in results) / len(results)
            for name in (results[0] if results else ())
        }
