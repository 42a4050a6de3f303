"""Real runners of mmdet and mmseg on labels that the config does not know."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.synthetic import write_dataset

from ...conftest import ROOT

SHAPES = ROOT / 'configs' / 'shapes'
(DETECT,) = SHAPES.glob('mask-rcnn_*.py')
(SEGMENT,) = SHAPES.glob('*upernet*.py')


@pytest.fixture
def shapes(tmp_path):
    write_dataset(tmp_path / 'data', dict(train=2, val=1), size=96)
    return tmp_path / 'data'


def make_runner(path, shapes, prepare=lambda cfg: None):
    cfg = Config.fromfile(path)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = str(shapes)
    if cfg.get('default_scope') == 'mmdet':
        truth = str(shapes / 'annotations' / 'instances_val.json')
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = truth
    cfg.work_dir = str(shapes.parent / 'work')
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    prepare(cfg)
    return Runner.from_cfg(cfg)


def train(path, shapes):
    make_runner(path, shapes).train()


def edit_annotations(shapes, split, change):
    path = shapes / 'annotations' / f'instances_{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('config', [DETECT, SEGMENT], ids=['mmdet', 'mmseg'])
def test_known_labels_train(config, shapes):
    train(config, shapes)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_unknown_category(shapes, split):
    def change(content):
        content['categories'].append(dict(id=9, name='hexagon'))
        content['annotations'][0]['category_id'] = 9

    edit_annotations(shapes, split, change)
    message = f"instances_{split}.json has 1 annotations of the category 'hexagon'"
    with pytest.raises(ValueError, match=message):
        train(DETECT, shapes)


def test_category_that_the_file_does_not_list(shapes):
    edit_annotations(
        shapes, 'train', lambda c: c['annotations'][0].update(category_id=77)
    )
    with pytest.raises(ValueError, match='annotations of the category 77'):
        train(DETECT, shapes)


def test_class_that_the_file_lacks(shapes):
    edit_annotations(shapes, 'train', lambda c: c['categories'][0].update(name='ball'))
    with pytest.raises(ValueError, match="no category 'disc'.*It has ball, square"):
        train(DETECT, shapes)


def test_unknown_category_when_testing(shapes):
    def change(content):
        content['categories'].append(dict(id=9, name='hexagon'))
        content['annotations'][0]['category_id'] = 9

    edit_annotations(shapes, 'val', change)
    with pytest.raises(ValueError, match="annotations of the category 'hexagon'"):
        make_runner(DETECT, shapes).test()
    with pytest.raises(ValueError, match="annotations of the category 'hexagon'"):
        make_runner(DETECT, shapes).val()


def edit_labels(path):
    labels = np.asarray(Image.open(path)).copy()
    labels[:5] = 8
    Image.fromarray(labels).save(path)


def test_label_beyond_the_heads(shapes):
    edit_labels(shapes / 'labels' / 'train' / '000001.png')
    with pytest.raises(ValueError, match='000001.png has the label 7.*knows 0 to 5'):
        train(SEGMENT, shapes)


@pytest.mark.parametrize('loop', ['train', 'val', 'test'])
def test_label_beyond_the_heads_in_validation(shapes, loop):
    edit_labels(shapes / 'labels' / 'val' / '000000.png')
    runner = make_runner(SEGMENT, shapes)
    with pytest.raises(ValueError, match='000000.png has the label 7.*knows 0 to 5'):
        getattr(runner, loop)()


def test_files_without_annotations_are_tested(shapes):
    """As those of COCO's test images, whose results are written to a file."""

    def prepare(cfg):
        prefix = str(shapes / 'results')
        cfg.test_evaluator.update(format_only=True, outfile_prefix=prefix)

    edit_annotations(shapes, 'val', lambda content: content.pop('annotations'))
    make_runner(DETECT, shapes, prepare).test()
    assert (shapes / 'results.bbox.json').is_file()


def test_file_that_is_not_of_instances(shapes):
    edit_annotations(shapes, 'val', lambda content: content.update(categories=[]))
    with pytest.raises(ValueError, match='instances_val.json lists no categories'):
        make_runner(DETECT, shapes).val()


@pytest.mark.parametrize('head', ['bbox_head', 'mask_head'])
@pytest.mark.parametrize('number', [3, 80])
@pytest.mark.parametrize('loop', ['train', 'val', 'test'])
def test_heads_of_another_number_of_classes(shapes, head, number, loop):
    def prepare(cfg):
        cfg.model.roi_head[head].num_classes = number

    runner = make_runner(DETECT, shapes, prepare)
    message = rf'roi_head.{head} knows {number} classes and the dataset has 5 \(disc'
    with pytest.raises(ValueError, match=message):
        getattr(runner, loop)()
