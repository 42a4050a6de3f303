"""Written datasets, read back by pycocotools, mmdet and mmseg."""

import json

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image
from pycocotools.coco import COCO

from mmmixmim.synthetic import CLASSES, draw_scene, write_dataset
from mmmixmim.synthetic.writing import run_lengths
from mmmixmim.validation import UserError


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_dataset(folder, dict(train=6, val=3), size=64, seed=5)
    return folder


def scene_of(split, i):
    return draw_scene(
        np.random.default_rng((5, ('train', 'val').index(split), i)), 64, (2, 5)
    )


def test_coco_has_the_masks_and_boxes(root):
    coco = COCO(root / 'annotations' / 'instances_train.json')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for i in coco.getImgIds():
        scene = scene_of('train', i)
        entries = coco.loadAnns(coco.getAnnIds(imgIds=i))
        assert [entry['category_id'] - 1 for entry in entries] == scene.labels
        for entry, mask in zip(entries, scene.masks, strict=True):
            assert np.array_equal(coco.annToMask(entry).astype(bool), mask)
            assert entry['area'] == mask.sum()
            x, y, w, h = entry['bbox']
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum()
            assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all()


def test_label_images_have_the_classes(root):
    for i in range(3):
        scene = scene_of('val', i)
        labels = np.asarray(Image.open(root / 'labels' / 'val' / f'{i:06}.png'))
        assert labels.shape == (64, 64) and labels.min() >= 1
        assert ((labels == 1) == ~scene.masks.any(0)).all()
        for label, mask in zip(scene.labels, scene.masks, strict=True):
            assert (labels[mask] == label + 2).all()


def test_images_are_jpegs_of_the_scenes(root):
    with Image.open(root / 'images' / 'train' / '000002.jpg') as image:
        assert image.format == 'JPEG'
        error = np.asarray(image).astype(int) - scene_of('train', 2).image
    assert np.abs(error).mean() < 7


def test_same_seed_writes_the_same_files(root, tmp_path):
    write_dataset(tmp_path, dict(train=6, val=3), size=64, seed=5)
    for path in root.rglob('*.*'):
        assert path.read_bytes() == (tmp_path / path.relative_to(root)).read_bytes()


def test_files_of_another_dataset_are_not_mixed_in(tmp_path):
    write_dataset(tmp_path, dict(train=3), size=64)
    write_dataset(tmp_path, dict(train=3), size=64, seed=1)
    message = 'train has 1 files .* such as 000002.jpg: delete'
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path, dict(train=2), size=64)
    assert len(list((tmp_path / 'images' / 'train').iterdir())) == 3
    (tmp_path / 'images' / 'train' / '000002.jpg').unlink()
    with pytest.raises(UserError, match='labels.*such as 000002.png: delete'):
        write_dataset(tmp_path, dict(train=2), size=64)


def test_number_of_shapes_and_default_size(tmp_path):
    write_dataset(tmp_path, dict(train=2), shapes=(1, 1))
    coco = COCO(tmp_path / 'annotations' / 'instances_train.json')
    assert [len(coco.getAnnIds(imgIds=i)) for i in coco.getImgIds()] == [1, 1]
    for image in coco.loadImgs(coco.getImgIds()):
        path = tmp_path / 'images' / 'train' / image['file_name']
        assert Image.open(path).size == (image['width'], image['height']) == (96, 96)


def test_smallest_size_can_be_drawn(tmp_path):
    write_dataset(tmp_path, dict(train=1), size=32)
    assert len(list(tmp_path.rglob('*.jpg'))) == 1


def test_mmdet_reads_it(root):
    from mmdet.registry import DATASETS

    init_default_scope('mmdet')
    dataset = DATASETS.build(
        dict(
            type='CocoDataset',
            metainfo=dict(classes=CLASSES),
            data_root=str(root),
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/train/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            ],
        )
    )
    assert len(dataset) == 6
    for i in range(6):
        sample, scene = dataset[i], scene_of('train', i)
        assert sample['gt_bboxes_labels'].tolist() == scene.labels
        assert np.array_equal(sample['gt_masks'].masks.astype(bool), scene.masks)


def test_mmseg_reads_it(root):
    from mmseg.registry import DATASETS

    init_default_scope('mmseg')
    dataset = DATASETS.build(
        dict(
            type='BaseSegDataset',
            metainfo=dict(classes=('background', *CLASSES)),
            reduce_zero_label=True,
            data_root=str(root),
            data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
            ],
        )
    )
    assert len(dataset) == 3
    labels = dataset[0]['gt_seg_map']
    scene = scene_of('val', 0)
    assert ((labels == 0) == ~scene.masks.any(0)).all() and labels.max() <= len(CLASSES)


@pytest.mark.parametrize('fill', [True, False])
def test_run_lengths_of_uniform_masks(fill):
    assert run_lengths(np.full((2, 3), fill)) == ([0, 6] if fill else [6])


def test_json_is_plain(root):
    content = json.loads((root / 'annotations' / 'instances_val.json').read_text())
    assert set(content) == {'images', 'annotations', 'categories'}
    assert all(entry['iscrowd'] == 0 for entry in content['annotations'])
    # pycocotools takes an id of 0 for no match.
    ids = [entry['id'] for entry in content['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    size = dict(height=64, width=64)
    names = [dict(id=i, file_name=f'{i:06}.jpg', **size) for i in range(3)]
    assert content['images'] == names


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(size=31), 'size must be at least 32 .* got 31'),
        (dict(seed=-1), 'seed must not be negative, got -1'),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        write_dataset(tmp_path, dict(train=1), **arguments)
    assert not list(tmp_path.iterdir())
