import numpy as np
import pytest

from mmmixmim.datasets import Digits, ScatteredDigits
from mmmixmim.registry import DATASETS
from mmmixmim.validation import UserError


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


def test_scattered_digits_are_the_same_every_time():
    first, second = (everything(ScatteredDigits('test')) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert (a['img'] == b['img']).all() and a['gt_label'] == b['gt_label']


def test_scattered_digits_have_the_labels_of_the_digits_in_every_draw():
    labels = [x['gt_label'] for x in everything(Digits('test'))]
    few = ScatteredDigits('test', draws=2)
    assert list(few.get_gt_labels()) == 2 * labels
    once, twice = few[0]['img'], few[len(labels)]['img']
    assert (once != twice).any()
    assert ScatteredDigits(samples_per_class=2).get_gt_labels().tolist() == (
        Digits(samples_per_class=2).get_gt_labels().tolist()
    )


def test_scattered_digits_lie_at_different_places():
    images = [x['img'] for x in everything(ScatteredDigits(img_size=40))]
    assert images[0].shape == (40, 40, 3) and images[0].dtype == np.uint8
    assert all((x[..., :1] == x).all() for x in images)  # grey
    centres = []
    for image in images[:200]:
        grey = image[..., 0].astype(float)
        bright = grey > (grey.min() + grey.max()) / 2
        assert 0 < bright.mean() < 0.5
        centres.append(np.argwhere(bright).mean(0))
    assert (np.std(centres, axis=0) > 2).all()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(img_size=8), 'img_size must be an int between 16 and 1024, got 8'),
        (dict(draws=0), 'draws must be a positive int, got 0'),
        (dict(split='val'), "split must be one of .*got 'val'"),
    ],
)
def test_scattered_digits_refuse_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        ScatteredDigits(**arguments)
