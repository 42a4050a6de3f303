"""Real runners of mmdet and mmseg on labels that the config does not define."""

import json
import shutil

import numpy as np
import pytest
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.engine import AnnotationCheckHook
from mmmixmim.synthetic import write_dataset
from mmmixmim.validation import UserError

from ...conftest import ROOT
from ..conftest import read_config

SHAPES = ROOT / 'configs' / 'shapes'
(DETECT,) = SHAPES.glob('mask-rcnn_*.py')
(SEGMENT,) = SHAPES.glob('*upernet*.py')


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    write_dataset(folder, dict(train=2, val=2), size=96)
    return folder


@pytest.fixture
def shapes(original, tmp_path):
    """A copy of the dataset that a test may change."""
    return shutil.copytree(original, tmp_path / 'data')


def make_runner(path, shapes, prepare=lambda cfg: None):
    cfg = read_config(path)
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


def edit_annotations(shapes, split, change):
    path = shapes / 'annotations' / f'instances_{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def add_hexagons(content):
    """Turn two annotations into a category that the config does not define."""
    content['categories'].append(dict(id=9, name='hexagon'))
    for annotation in content['annotations'][:2]:
        annotation['category_id'] = 9


def edit_labels(path, value, rows=5):
    """Set the upper rows of a label map, in values before ``reduce_zero_label``."""
    labels = np.asarray(Image.open(path)).copy()
    labels[:rows] = value
    Image.fromarray(labels).save(path)


def without_validation(cfg):
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


@pytest.mark.parametrize('config', [DETECT, SEGMENT], ids=['mmdet', 'mmseg'])
def test_known_labels_train(config, shapes):
    make_runner(config, shapes).train()


@pytest.mark.parametrize('config', [DETECT, SEGMENT], ids=['mmdet', 'mmseg'])
def test_training_needs_no_validation(config, shapes):
    AnnotationCheckHook().before_train(make_runner(config, shapes, without_validation))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_unknown_category_stops_training_before_the_first_iteration(shapes, split):
    edit_annotations(shapes, split, add_hexagons)
    runner = make_runner(DETECT, shapes)
    message = f"instances_{split}.json has 2 annotations of the category 'hexagon'"
    with pytest.raises(UserError, match=message):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('loop', ['val', 'test'])
def test_unknown_category_stops_validation_and_testing(shapes, loop):
    edit_annotations(shapes, 'val', add_hexagons)
    runner = make_runner(DETECT, shapes)
    with pytest.raises(UserError, match="annotations of the category 'hexagon'"):
        getattr(runner, loop)()


def test_category_id_missing_from_the_file(shapes):
    edit_annotations(
        shapes, 'train', lambda c: c['annotations'][0].update(category_id=77)
    )
    with pytest.raises(UserError, match='has 1 annotations of the category 77'):
        make_runner(DETECT, shapes).train()


def test_class_missing_from_the_file(shapes):
    edit_annotations(shapes, 'train', lambda c: c['categories'][0].update(name='ball'))
    with pytest.raises(UserError, match="no category 'disc'.*It has ball, square"):
        make_runner(DETECT, shapes).train()


def repeat(dataset):
    return dict(type='RepeatDataset', times=2, dataset=dataset)


def join(dataset):
    first = dataset | dict(
        ann_file='annotations/instances_val.json', data_prefix=dict(img='images/val/')
    )
    return dict(type='ConcatDataset', datasets=[first, dataset])


@pytest.mark.parametrize('wrap', [repeat, join, lambda each: repeat(join(each))])
def test_datasets_inside_wrappers_are_checked(shapes, wrap):
    def prepare(cfg):
        cfg.train_dataloader.dataset = wrap(dict(cfg.train_dataloader.dataset))

    edit_annotations(shapes, 'train', add_hexagons)
    runner = make_runner(DETECT, shapes, prepare)
    with pytest.raises(UserError, match='instances_train.json.*hexagon'):
        AnnotationCheckHook().before_train(runner)


def test_each_file_is_read_once(shapes):
    runner, hook = make_runner(DETECT, shapes), AnnotationCheckHook()
    hook.before_val(runner)
    (shapes / 'annotations' / 'instances_val.json').unlink()
    hook.before_val(runner)
    with pytest.raises(FileNotFoundError):
        AnnotationCheckHook().before_val(runner)


@pytest.mark.parametrize('loop', ['train', 'val', 'test'])
def test_first_label_beyond_the_head(shapes, loop):
    """Six classes have the labels 0 to 5. The second image of the batch has a 6."""
    split = 'train' if loop == 'train' else 'val'
    edit_labels(shapes / 'labels' / split / '000001.png', 7)
    runner = make_runner(SEGMENT, shapes)
    message = '000001.png has the label 6 .*expects 0 to 5: set num_classes'
    with pytest.raises(UserError, match=message):
        getattr(runner, loop)()


def test_largest_label_and_ignored_images_pass(shapes):
    edit_labels(shapes / 'labels' / 'val' / '000000.png', 6)
    edit_labels(shapes / 'labels' / 'val' / '000001.png', 0, rows=96)
    make_runner(SEGMENT, shapes).val()


def test_last_head_of_a_cascade_is_checked(shapes):
    def prepare(cfg):
        head = dict(
            in_channels=128,
            in_index=2,
            channels=8,
            norm_cfg=dict(type='BN'),
            loss_decode=dict(type='CrossEntropyLoss'),
        )
        cfg.model.type = 'CascadeEncoderDecoder'
        cfg.model.num_stages = 2
        cfg.model.decode_head = [
            dict(head, type='FCNHead', num_classes=9),
            dict(head, type='OCRHead', num_classes=6, ocr_channels=4),
        ]

    edit_labels(shapes / 'labels' / 'val' / '000000.png', 7)
    with pytest.raises(UserError, match='has the label 6 .*expects 0 to 5'):
        make_runner(SEGMENT, shapes, prepare).val()


def test_images_without_label_maps_are_tested(shapes):
    def prepare(cfg):
        pipeline = cfg.test_dataloader.dataset.pipeline
        pipeline[:] = [each for each in pipeline if each['type'] != 'LoadAnnotations']
        output = str(shapes / 'results')
        cfg.test_evaluator.update(format_only=True, output_dir=output)

    make_runner(SEGMENT, shapes, prepare).test()
    assert len(list((shapes / 'results').iterdir())) == 2


def test_files_without_annotations_are_tested(shapes):
    """Such as those of COCO's test sets, for which results are written to a file."""

    def prepare(cfg):
        prefix = str(shapes / 'results')
        cfg.test_evaluator.update(format_only=True, outfile_prefix=prefix)

    edit_annotations(shapes, 'val', lambda content: content.pop('annotations'))
    make_runner(DETECT, shapes, prepare).test()
    assert (shapes / 'results.bbox.json').is_file()


def test_file_without_categories(shapes):
    edit_annotations(shapes, 'val', lambda content: content.update(categories=[]))
    with pytest.raises(UserError, match='instances_val.json lists no categories'):
        make_runner(DETECT, shapes).val()


@pytest.mark.parametrize('head', ['bbox_head', 'mask_head'])
@pytest.mark.parametrize('number', [4, 6])
def test_heads_with_another_number_of_classes(shapes, head, number):
    def prepare(cfg):
        cfg.model.roi_head[head].num_classes = number

    runner = make_runner(DETECT, shapes, prepare)
    message = rf'roi_head.{head} has {number} classes, but the dataset has 5 \(disc'
    for run in (runner.train, runner.val, runner.test):
        with pytest.raises(UserError, match=message):
            run()


def test_distributed_models_are_checked(shapes, process_group):
    def prepare(cfg):
        cfg.model.roi_head.bbox_head.num_classes = 4

    runner = make_runner(DETECT, shapes, prepare)
    runner.model = MMDistributedDataParallel(runner.model)
    with pytest.raises(UserError, match='roi_head.bbox_head has 4 classes'):
        runner.val()
