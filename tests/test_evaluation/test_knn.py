import numpy as np
import pytest
import torch

from mmmixmim.evaluation import knn


def cones(count, seed, noise=0.1):
    """Features in three directions, of any length."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    lengths = rng.uniform(0.1, 10, (count, 1))
    features = lengths * (np.eye(3)[labels] + noise * rng.standard_normal((count, 3)))
    return features.astype(np.float32), labels + 5


def test_separated_directions_score_100():
    assert knn(cones(200, 0), cones(100, 1)) == 100


def test_wrong_labels_count_as_errors():
    features, labels = cones(100, 1)
    labels[:30] = (labels[:30] - 4) % 3 + 5
    assert knn(cones(200, 0), (features, labels)) == pytest.approx(70)


def test_uninformative_features_score_at_chance():
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((2000, 8)), rng.integers(0, 4, 2000)
    found = knn((features[:1000], labels[:1000]), (features[1000:], labels[1000:]))
    assert 18 < found < 32


def test_near_neighbours_outweigh_many_far_ones():
    train = np.array([[1, 0], [0, 1], [0.1, 1], [-0.1, 1]]), np.array([0, 1, 1, 1])
    assert knn(train, (np.array([[1, 0.1]]), np.array([0]))) == 100


def test_more_neighbours_than_images_are_all_images():
    assert knn(cones(6, 0, 0.0), cones(9, 1, 0.0), neighbours=100) == 100


def test_autocast_changes_nothing():
    with torch.autocast('cpu', torch.bfloat16):
        assert knn(cones(200, 0), cones(100, 1)) == 100
