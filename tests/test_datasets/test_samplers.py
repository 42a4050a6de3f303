import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, Subset

from mmmixmim.datasets.samplers import ResumableBatchSampler
from mmmixmim.datasets.seeding import SeededDataset, SeededIndex, set_seeds
from mmmixmim.validation import UserError


class Numbers(Dataset):
    """Ten samples with random parts, and a note of what was loaded."""

    def __init__(self):
        self.loaded = []

    def __getitem__(self, index):
        assert type(index) is int
        self.loaded.append(index)
        return index, torch.rand(()), np.random.rand()

    def __len__(self):
        return 10


def batches(endless=False, sampler=DefaultSampler, **position):
    inner = BatchSampler(sampler(range(10), seed=3), batch_size=4, drop_last=False)
    sampler = ResumableBatchSampler(inner, endless)
    sampler.start(**dict(seed=3, rank=0) | position)
    return sampler


def test_batches_are_those_of_the_sampler():
    plain = DefaultSampler(range(10), seed=3)
    for epoch in (0, 2):
        plain.set_epoch(epoch)
        got = list(batches(epoch=epoch))
        assert len(got) == len(batches()) == 3
        assert [index for batch in got for index in batch] == list(plain)


@pytest.mark.parametrize('skip', [0, 1, 3])
def test_skipped_batches_change_nothing_else(skip):
    whole = list(batches(iteration=6))
    rest = list(batches(iteration=6 + skip, skip=skip))
    assert rest == whole[skip:]
    for a, b in zip(rest, whole[skip:], strict=True):
        assert [index.key for index in a] == [index.key for index in b]


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_endless_batches_go_on_with_the_next_epoch(sampler):
    def first(count, **position):
        iterator = iter(batches(True, sampler, **position))
        return [next(iterator) for _ in range(count)]

    assert first(8)[5:] == first(3, iteration=5, skip=5)
    if sampler is DefaultSampler:
        assert first(6)[3:] == list(batches(epoch=1))


def test_no_batch_at_all_is_an_error_not_an_endless_loop():
    inner = BatchSampler(range(3), batch_size=4, drop_last=True)
    with pytest.raises(UserError, match='no batch'):
        next(iter(ResumableBatchSampler(inner, endless=True)))


def load(workers=0, dataset=None, **position):
    loader = DataLoader(
        SeededDataset(dataset or Numbers()),
        batch_sampler=batches(**position),
        num_workers=workers,
    )
    return [torch.stack(batch).tolist() for batch in map(_doubles, loader)]


def _doubles(batch):
    return [each.double() for each in batch]


def test_samples_depend_on_seed_rank_and_iteration_alone():
    whole = load()
    torch.manual_seed(1)
    np.random.seed(1)
    assert load(workers=2) == whole
    assert load(skip=2, iteration=2) == whole[2:]
    for other in (dict(seed=4), dict(rank=1), dict(iteration=3)):
        values, others = (
            {tuple(sample[1:]) for batch in run for sample in zip(*batch, strict=True)}
            for run in (whole, load(**other))
        )
        assert len(values) == 10 and not values & others


def test_skipped_samples_are_not_loaded():
    dataset = Numbers()
    load(dataset=dataset, skip=2)
    assert len(dataset.loaded) == 2


def test_repeated_samples_get_numbers_of_their_own():
    inner = BatchSampler([5, 5, 5], batch_size=3, drop_last=False)
    (batch,) = ResumableBatchSampler(inner)
    dataset = SeededDataset(Numbers())
    assert len({dataset[index][2] for index in batch}) == 3


def test_datasets_that_load_whole_batches_are_seeded_too():
    subset = SeededDataset(Subset(Numbers(), range(10)))
    assert not hasattr(subset, '__getitems__')


def test_index_keeps_its_key_on_the_way_to_a_worker():
    index = SeededIndex(7)
    index.key = 1, 2
    copy = pickle.loads(pickle.dumps(index))
    assert copy == 7 and copy.key == (1, 2)


def test_attributes_are_those_of_the_dataset():
    dataset = SeededDataset(Numbers())
    dataset.pipeline = 'new'
    assert dataset.dataset.pipeline == 'new' and len(dataset) == 10
    assert pickle.loads(pickle.dumps(dataset)).pipeline == 'new'
    assert dataset[3][0] == 3  # without a seed
    with pytest.raises(AttributeError, match='nothing'):
        dataset.nothing  # noqa: B018


def test_keys_give_unrelated_numbers():
    drawn = set()
    for key in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2**40)):
        set_seeds(*key)
        drawn.add((torch.rand(()).item(), np.random.rand(), random.random()))
    assert len(drawn) == 5 and len({each for some in drawn for each in some}) == 15
    set_seeds(1, 1)
    assert (torch.rand(()).item(), np.random.rand(), random.random()) in drawn
