from itertools import count, islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from mmmixmim.datasets import WrappedDataset, WrappedIterable, named_dataset
from mmmixmim.validation import UserError

PIPELINE = [
    dict(type='LoadRasterCrop', scale=16, crop_ratio_range=(1, 1)),
    dict(type='PackInputs'),
]
PIXELS = np.random.default_rng(0).random((20, 20, 3), np.float32)


@pytest.mark.parametrize(
    'item',
    [
        PIXELS,
        torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()),
        (torch.from_numpy(PIXELS.transpose(2, 0, 1).copy()), 7),
        dict(image=PIXELS, label=3),
        [PIXELS],
    ],
    ids=['array', 'tensor', 'pair', 'dict', 'list'],
)
def test_items_of_any_kind_become_images(item):
    (found,) = [WrappedDataset([item], PIPELINE)[0]['inputs']]
    assert torch.equal(found, WrappedDataset([PIXELS], PIPELINE)[0]['inputs'])
    assert found.shape == (3, 16, 16)


def test_paths_and_pictures_become_images(tmp_path):
    picture = Image.fromarray((PIXELS * 255).astype('uint8'))
    picture.save(tmp_path / 'a.png')
    dataset = WrappedDataset(
        [picture, tmp_path / 'a.png', picture.convert('L')], PIPELINE
    )
    assert torch.equal(dataset[0]['inputs'], dataset[1]['inputs'])
    assert dataset[2]['inputs'].shape == (1, 16, 16)


def test_torch_dataset_goes_through_a_loader():
    dataset = WrappedDataset(TensorDataset(torch.rand(6, 5, 20, 20)), PIPELINE)
    batch = next(
        iter(DataLoader(dataset, 4, collate_fn=lambda b: [x['inputs'] for x in b]))
    )
    assert torch.stack(batch).shape == (4, 5, 16, 16)


@pytest.mark.parametrize('kind', [WrappedDataset, WrappedIterable])
def test_images_of_several_types_are_refused(kind):
    """Which workers cannot put into one batch."""
    items = [(PIXELS * 255).astype('uint8')] * 3 + [PIXELS]
    images = iter(DataLoader(kind(items, PIPELINE), 1, collate_fn=list))
    with pytest.raises(UserError, match='Item 3 .* of torch.float32, others one of '):
        list(islice(images, 4))


def test_masks_of_items_become_weights():
    mask = np.zeros((20, 20), bool)
    mask[:10] = True
    sample = WrappedDataset([dict(img=PIXELS, mask=mask)], PIPELINE[:1])[0]
    weight = sample['pixel_weight']
    assert weight[:7].min() == pytest.approx(1) and not weight[9:].any()


def test_unreadable_items_are_skipped_where_that_is_asked_for(tmp_path):
    pipeline = [PIPELINE[0] | dict(ignore_empty=True), PIPELINE[1]]
    dataset = WrappedDataset([tmp_path / 'none.png', PIXELS], pipeline)
    assert torch.equal(dataset[0]['inputs'], dataset[1]['inputs'])


def test_images_are_held_out():
    images = [np.full((20, 20), number, np.float32) for number in range(10)]
    train, held_out, again = (
        WrappedDataset(images, PIPELINE, part, held_out=3)
        for part in ('train', 'held_out', 'held_out')
    )
    assert (len(train), len(held_out)) == (7, 3)
    found = [
        [round(each[i]['inputs'].mean().item()) for i in range(len(each))]
        for each in (train, held_out, again)
    ]
    assert sorted(found[0] + found[1]) == list(range(10))
    assert found[1] == found[2] != [7, 8, 9]


def test_configs_name_datasets_of_python():
    with named_dataset('mine', [PIXELS]):
        assert len(WrappedDataset('mine', PIPELINE)) == 1
    with pytest.raises(UserError, match=r'\(mine\) came from Python'):
        WrappedDataset('mine', PIPELINE)


def numbers():
    return (np.full((20, 20), i, np.float32) for i in range(10))


def values(loader, n):
    return [round(batch['inputs'][0, 0, 0].item()) for batch in islice(loader, n)]


def test_iterable_starts_again_without_end():
    assert values(WrappedIterable(numbers, PIPELINE), 25) == [i % 10 for i in range(25)]
    pictures = list(numbers())
    assert values(WrappedIterable(pictures, PIPELINE), 12) == [
        i % 10 for i in range(12)
    ]


def test_loader_processes_share_an_iterable():
    loader = DataLoader(WrappedIterable(numbers, PIPELINE), None, num_workers=2)
    found = values(loader, 20)
    assert sorted(found[:10]) == list(range(10)) == sorted(found[10:])


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: WrappedDataset(count(), PIPELINE), 'no length'),
        (lambda: WrappedDataset([], PIPELINE), 'empty'),
        (lambda: WrappedDataset([PIXELS], PIPELINE, held_out=1), 'leave one'),
        (lambda: WrappedDataset([PIXELS], PIPELINE, held_out=0.05), 'must be an int'),
        (lambda: WrappedDataset([PIXELS], PIPELINE, part='val'), 'part must be'),
        (lambda: WrappedDataset([dict(a=1)], PIPELINE)[0], 'has the keys a'),
        (lambda: WrappedDataset([7], PIPELINE)[0], 'is a int'),
        (lambda: WrappedIterable(numbers(), PIPELINE), 'after one pass'),
        (lambda: next(iter(WrappedIterable([], PIPELINE))), 'no readable image'),
    ],
)
def test_what_holds_no_images_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_masks_may_be_files(tmp_path):
    mask = np.zeros((20, 20), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    item = dict(img=PIXELS, mask=tmp_path / 'mask.png')
    weight = WrappedDataset([item], PIPELINE[:1])[0]['pixel_weight']
    assert weight[:7].min() == pytest.approx(1) and not weight[9:].any()
    (tmp_path / 'mask.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='mask.png'):
        WrappedDataset([item], PIPELINE[:1])[0]


def test_tensors_of_bfloat16_and_of_many_channels():
    found = WrappedDataset([torch.rand(3, 20, 20).bfloat16()], PIPELINE)[0]['inputs']
    assert found.shape == (3, 16, 16)
    with pytest.raises(UserError, match=r'\(40, 20, 20\) has more channels than rows'):
        WrappedDataset([torch.rand(40, 20, 20)], PIPELINE)[0]
