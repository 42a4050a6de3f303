import math

import pytest
import torch
from mmengine.logging import MMLogger

from mmmixmim.evaluation import FeatureHealth, feature_health


def test_collapsed_features_have_rank_one_no_spread_and_dead_channels():
    features = torch.randn(1, 32).expand(100, -1)
    health = feature_health(features)
    assert health['rank'] == pytest.approx(1, abs=1e-3)
    assert health['std'] == pytest.approx(0, abs=1e-6)
    assert health['dead'] == 1


def test_random_features_have_nearly_full_rank_and_spread():
    health = feature_health(torch.randn(5000, 32))
    assert 31 < health['rank'] <= 32.01
    assert health['std'] == pytest.approx(1, abs=0.02)
    assert health['dead'] == 0


@pytest.mark.parametrize('rank', [2, 5, 12])
def test_rank_counts_directions_of_equal_weight(rank):
    basis = torch.linalg.qr(torch.randn(32, rank)).Q.T
    health = feature_health(torch.randn(20000, rank) @ basis)
    assert health['rank'] == pytest.approx(rank, rel=0.01)


def test_a_mean_that_all_images_share_does_not_hide_the_rank():
    features = torch.randn(5000, 16)
    assert feature_health(features + 100)['rank'] == pytest.approx(
        feature_health(features)['rank'], rel=1e-3
    )


def test_scale_changes_nothing():
    features = torch.randn(200, 16)
    assert feature_health(1e4 * features) == pytest.approx(feature_health(features))


def test_constant_channels_are_dead():
    features = torch.randn(200, 16)
    features[:, :4] = 3.0
    assert feature_health(features)['dead'] == 0.25


def test_features_that_are_not_finite_give_nan():
    features = torch.randn(50, 4)
    features[3, 1] = float('inf')
    assert all(math.isnan(value) for value in feature_health(features).values())


def samples(count, images=2):
    return [
        dict(features=[torch.randn(images, 8), torch.randn(images, 16)])
        for _ in range(count)
    ]


def test_metric_reports_each_stage():
    metric = FeatureHealth()
    metric.process(None, samples(10))
    metric.process(None, samples(3))
    found = metric.evaluate(13)
    assert set(found) == {
        f'features/{name}_stage{n}' for name in ('rank', 'std', 'dead') for n in (1, 2)
    }
    assert 7 < found['features/rank_stage1'] <= 8.01
    assert 10 < found['features/rank_stage2'] <= 16.01


@pytest.mark.parametrize('count', [0, 3])
def test_too_few_images_give_one_line_and_no_figure(count, caplog):
    logger = MMLogger.get_current_instance()
    metric = FeatureHealth()
    logger.addHandler(caplog.handler)
    try:
        for _ in range(2):
            metric.process(None, samples(count))
            assert metric.evaluate(count) == {}
    finally:
        logger.removeHandler(caplog.handler)
    lines = [
        r.getMessage() for r in caplog.records if 'hold out more' in r.getMessage()
    ]
    assert len(lines) == 1
    assert f'at least 16 held-out images and got {2 * count}' in lines[0]
