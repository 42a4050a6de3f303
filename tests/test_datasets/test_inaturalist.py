import json
import pickle

import numpy as np
import pytest
from PIL import Image

from mmmixmim.datasets import INaturalist
from mmmixmim.registry import DATASETS
from mmmixmim.validation import UserError

from ..payloads import Attack

FILES = ['train_val2018/Aves/7/a.jpg', 'train_val2018/Plantae/2/b.jpg']


@pytest.fixture
def content():
    """Two images, with category ids that neither start at 0 nor are sorted."""
    return dict(
        categories=[dict(id=7, name='Aves 7'), dict(id=2, name=2)],
        images=[dict(id=10 + i, file_name=name) for i, name in enumerate(FILES)],
        annotations=[
            dict(id=1, image_id=11, category_id=2),
            dict(id=2, image_id=10, category_id=7),
        ],
    )


@pytest.fixture
def build(tmp_path):
    def make(content, **kwargs):
        for value, name in enumerate(FILES):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = np.full((20, 30, 3), 200 * value, dtype=np.uint8)
            Image.fromarray(picture).save(path)
        (tmp_path / 'train2018.json').write_text(json.dumps(content))
        return DATASETS.build(
            dict(
                type='INaturalist',
                ann_file='train2018.json',
                pipeline=[dict(type='LoadImageFromFile')],
                **dict(data_root=str(tmp_path)) | kwargs,
            )
        )

    return make


def test_images_and_labels(build, content):
    dataset = build(content)
    assert dataset.CLASSES == ('2', 'Aves 7')
    found = [(sample['gt_label'], sample['img'].mean()) for sample in dataset]
    assert found == [(0, pytest.approx(200, abs=3)), (1, pytest.approx(0, abs=3))]


def test_labels_are_those_of_the_annotated_images(build, content):
    """Annotations are in another order than images."""
    paths = [sample['img_path'] for sample in build(content)]
    assert [path.split('/')[-1] for path in paths] == ['b.jpg', 'a.jpg']


def test_images_may_lie_in_another_folder(build, content, tmp_path):
    build(content)
    (tmp_path / 'train_val2018').rename(tmp_path / 'moved')
    for image in content['images']:
        image['file_name'] = image['file_name'].removeprefix('train_val2018/')
    assert len(list(build(content, data_prefix='moved'))) == 2


def test_expands_the_home_folder(build, content, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert len(build(content, data_root='~')) == 2


@pytest.mark.parametrize('part', ['images', 'annotations', 'categories'])
def test_missing_parts_are_named(build, content, part):
    del content[part]
    with pytest.raises(ValueError, match=f"train2018.json has no '{part}'"):
        build(content)


def test_unknown_category_is_named(build, content):
    content['annotations'][0]['category_id'] = 5
    with pytest.raises(ValueError, match='image 11 has category 5.*does not list'):
        build(content)


def test_missing_file_is_named(tmp_path):
    cfg = dict(type='INaturalist', data_root=str(tmp_path), ann_file='val2018.json')
    with pytest.raises(FileNotFoundError, match='no annotation file .*val2018.json'):
        DATASETS.build(cfg)


def test_unknown_image_is_named(build, content):
    content['annotations'][0]['image_id'] = 99
    with pytest.raises(ValueError, match='to image 99, which the file does not list'):
        build(content)


@pytest.mark.parametrize(
    'given', [dict(classes=['a']), dict(metainfo=dict(classes=['a']))]
)
def test_classes_come_from_the_file(given):
    cfg = dict(type='INaturalist', data_root='.', ann_file='a.json', **given)
    with pytest.raises(ValueError, match='takes its classes from ann_file'):
        DATASETS.build(cfg)


def test_pickles_are_no_annotation_files(tmp_path):
    marker = tmp_path / 'code has run'
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(Attack(marker)))
    with pytest.raises(UserError, match='a.pkl is not a JSON file'):
        INaturalist(str(tmp_path), 'a.pkl')
    assert not marker.exists()
