import pytest
import torch
from mmpretrain.structures import DataSample

from mmmixmim.datasets import MixtureGroups
from mmmixmim.registry import DATASETS
from mmmixmim.validation import UnreadableFileError


class Numbers:
    """Images that show their own number."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, count, broken=()):
        self.count = count
        self.broken = broken

    def __len__(self):
        return self.count

    def prepare_data(self, i):
        if i in self.broken:
            return None
        return dict(inputs=torch.full((3, 2, 2), i), data_samples=DataSample(gt=i))


def members(dataset):
    return [[int(x[0, 0, 0]) for x in item['inputs']] for item in dataset]


@pytest.mark.parametrize(
    'count, images, expected',
    [
        (6, 2, [[0, 3], [1, 4], [2, 5]]),
        (7, 2, [[0, 3], [1, 4], [2, 5]]),
        (6, 3, [[0, 2, 4], [1, 3, 5]]),
        (3, 1, [[0], [1], [2]]),
        (1, 2, []),
        (0, 2, []),
    ],
)
def test_groups_are_images_far_apart(count, images, expected):
    dataset = MixtureGroups(Numbers(count), images)
    assert len(dataset) == len(expected)
    assert members(dataset) == expected


def test_images_are_spaced_evenly_if_they_are_too_many():
    assert members(MixtureGroups(Numbers(100), 2, max_images=4)) == [[0, 50], [25, 75]]
    assert len(MixtureGroups(Numbers(10), 2, max_images=1000)) == 5


def test_samples_know_their_position_and_members():
    item = MixtureGroups(Numbers(4), 2)[1]
    assert item['data_samples'].position == 1
    assert [each.gt for each in item['data_samples'].members] == [1, 3]


def test_an_image_that_is_given_up_is_replaced_by_the_next():
    dataset = MixtureGroups(Numbers(4, broken=(1, 2)), 2)
    assert members(dataset) == members(dataset) == [[0, 3], [3, 3]]
    assert members(MixtureGroups(Numbers(4, broken=(3,)), 2)) == [[0, 2], [1, 0]]
    with pytest.raises(UnreadableFileError, match='None of the held-out images'):
        MixtureGroups(Numbers(4, broken=range(4)), 2)[0]


def test_works_on_a_dataset_by_its_config():
    dataset = DATASETS.build(
        dict(
            type='MixtureGroups',
            dataset=dict(
                type='Digits', split='test', pipeline=[dict(type='PackInputs')]
            ),
        )
    )
    assert len(dataset) == 549 // 2
    assert dataset[0]['inputs'][1].shape == (1, 8, 8)
    assert dataset.metainfo['classes'][3] == '3'
