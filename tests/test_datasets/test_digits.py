import numpy as np
import pytest

from mmmixmim.datasets import Digits
from mmmixmim.registry import DATASETS


def everything(dataset):
    return [dataset[i] for i in range(len(dataset))]


def test_split_is_fixed_and_complete():
    from sklearn.datasets import load_digits

    train, test = everything(Digits('train')), everything(Digits('test'))
    assert (len(train), len(test)) == (1248, 549)
    seen = sorted((x['gt_label'], x['img'].tobytes()) for x in train + test)
    images = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    labels = load_digits().target.tolist()
    assert seen == sorted(zip(labels, map(bytes, images), strict=True))
    counts = np.bincount([x['gt_label'] for x in test])
    assert counts.min() >= 50 and counts.max() <= 60


def test_images_are_grayscale_bytes():
    train = everything(Digits())
    assert len(train) == 1248  # the default split
    assert train[0]['img'].shape == (8, 8) and train[0]['img'].dtype == np.uint8
    assert max(x['img'].max() for x in train) == 255


def test_goes_through_a_pipeline():
    pipeline = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    dataset = DATASETS.build(dict(type='Digits', split='test', pipeline=pipeline))
    sample = dataset[7]
    assert sample['inputs'].shape == (1, 32, 32)
    assert sample['data_samples'].gt_label.item() == dataset.get_gt_labels()[7]
    assert dataset.CLASSES == tuple('0123456789')


def test_few_samples_per_class():
    def images(**kwargs):
        return {x['img'].tobytes() for x in everything(Digits(**kwargs))}

    few = Digits(samples_per_class=3)
    assert np.bincount(few.get_gt_labels()).tolist() == [3] * 10
    first, second = (images(samples_per_class=3, seed=seed) for seed in (0, 1))
    assert {x['img'].tobytes() for x in everything(few)} == first != second
    assert first < images(samples_per_class=9) < images()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(split='val'), "split must be one of .*got 'val'"),
        (dict(samples_per_class=0), 'Cannot draw 0 images of class 0'),
        (dict(samples_per_class=1000), r'draw 1000 images.*from 1 to \d+'),
    ],
)
def test_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Digits(**arguments)
