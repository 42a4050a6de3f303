import pytest
import torch

from mmmixmim.evaluation import ReconstructionLoss


def test_every_group_counts_the_same_in_uneven_batches():
    metric = ReconstructionLoss()
    for batch in ([1.0, 2.0, 3.0], [4.0], [8.0]):
        metric.process(
            None, [dict(reconstruction_loss=torch.tensor(loss)) for loss in batch]
        )
    assert metric.evaluate(5) == {'reconstruction/loss': pytest.approx(3.6)}


def test_padding_of_the_last_batch_is_dropped():
    metric = ReconstructionLoss()
    losses = [1.0, 2.0, 9.0]
    metric.process(None, [dict(reconstruction_loss=loss) for loss in losses])
    assert metric.evaluate(2) == {'reconstruction/loss': 1.5}


def test_the_loss_of_the_mean_is_averaged_where_it_is_measured():
    metric = ReconstructionLoss()
    metric.process(
        None, [dict(reconstruction_loss=1.0, mean_loss=loss) for loss in (0.5, 0.7)]
    )
    assert metric.evaluate(2)['reconstruction/mean_loss'] == pytest.approx(0.6)
