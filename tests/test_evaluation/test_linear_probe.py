import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmixmim.evaluation import extract_features, linear_probe
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from ..conftest import ROOT


def blobs(count, spread, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centres = np.array([[0, 0], [5000, 0], [0, 0.001]])
    scale = np.array([1000, 0.0002]) * spread
    return centres[labels] + scale * rng.standard_normal((count, 2)), labels


def test_separable_features_score_100_at_any_scale():
    assert linear_probe(blobs(300, 0.5), blobs(100, 0.5, seed=1)) == 100


def test_uninformative_features_score_at_chance():
    train, labels = blobs(300, 0.5)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert linear_probe((train, shuffled), blobs(300, 0.5, seed=1)) < 60


@pytest.mark.parametrize('samples_per_class', [None, 20])
def test_training_data_are_memorised_and_only_test_data_scored(
    samples_per_class,
):
    """In 200 dimensions, any labels of 60 images can be memorised."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    train = rng.standard_normal((60, 200)), labels
    test = rng.standard_normal((600, 200)), rng.integers(0, 3, 600)
    assert linear_probe(train, train, samples_per_class) == 100
    assert 25 < linear_probe(train, test, samples_per_class) < 42
    assert linear_probe(train, (train[0], rng.permutation(labels))) < 60


def test_accuracy_is_the_percentage_of_correct_labels():
    features, labels = blobs(200, 0.2)
    wrong = labels.copy()
    wrong[:50] = (wrong[:50] + 1) % 3
    assert linear_probe((features, labels), (features, wrong)) == pytest.approx(75)


def test_more_labels_help_and_the_seed_chooses_them():
    train, test = blobs(3000, 1.5), blobs(1000, 1.5, seed=1)
    few = [linear_probe(train, test, samples_per_class=2, seed=s) for s in range(8)]
    assert len(set(few)) > 1 and np.mean(few) < linear_probe(train, test)
    assert few[0] == linear_probe(train, test, samples_per_class=2)  # the default


def test_refuses_more_samples_than_there_are():
    with pytest.raises(UserError, match='Cannot draw 1000 images'):
        linear_probe(blobs(30, 1), blobs(30, 1), samples_per_class=1000)


def test_features_of_a_classifier():
    cfg = Config.fromfile(
        ROOT / 'configs' / 'digits' / 'mixmim-tiny_1xb64-coslr-20e_digits.py'
    )
    init_default_scope(cfg.default_scope)
    cfg.val_dataloader.update(batch_size=40, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.indices = 100
    cfg.model.backbone.out_indices = (0, 2)  # of which the last one counts
    loader = Runner.build_dataloader(cfg.val_dataloader)
    model = MODELS.build(cfg.model).train()
    features, labels = extract_features(model, loader)
    assert features.shape == (100, 128) and features.dtype == np.float32
    assert labels.tolist() == loader.dataset.get_gt_labels().tolist()
    again, _ = extract_features(model, loader)
    # Neither stochastic depth nor augmentation.
    assert np.array_equal(features, again) and not model.training
    batch = model.data_preprocessor(next(iter(loader)))
    with torch.no_grad():
        feature_map = model.backbone(batch['inputs'])[-1]
    wanted = feature_map.mean((2, 3))
    assert features[: len(wanted)] == pytest.approx(wanted.numpy(), abs=1e-5)
