from contextlib import nullcontext

import numpy as np
import pytest
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.engine import ClassCheckHook
from mmmixmim.validation import UserError

from ...conftest import ROOT
from ..conftest import read_config

CONFIG = ROOT / 'configs' / 'folder' / 'mixmim-tiny_1xb64-coslr-100e_folder.py'


@pytest.fixture
def make_runner(tmp_path):
    """Builder of a runner of one epoch on folders of classes."""

    def make(train, val, num_classes, prepare=lambda cfg: None):
        for split, classes in dict(train=train, val=val).items():
            for name in classes:
                path = tmp_path / split / name / 'a.png'
                path.parent.mkdir(parents=True)
                Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
        cfg = read_config(CONFIG)
        cfg.work_dir = str(tmp_path / 'work')
        cfg.train_cfg.max_epochs = 1
        cfg.model.backbone.update(init_cfg=None, img_size=32)
        cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = (
            num_classes
        )
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[loader].update(
                batch_size=len(train), num_workers=0, persistent_workers=False
            )
            split = loader.split('_')[0].replace('test', 'val')
            cfg[loader].dataset.data_root = str(tmp_path / split)
            cfg[loader].dataset.pipeline = [
                dict(type='LoadImageFromFile'),
                dict(type='PackInputs'),
            ]
        prepare(cfg)
        return Runner.from_cfg(cfg)

    return make


def test_same_classes_train_and_test(make_runner):
    runner = make_runner(['cat', 'dog'], ['cat', 'dog'], 2)
    runner.train()
    runner.test()


@pytest.mark.parametrize(
    'tested, error, warning',
    [
        (['ant', 'cat'], "'cat' has label 1 in the test data and 0 in the trai", ''),
        (['cat', 'hound'], '', "Class 'dog' is in only one of the test data and"),
    ],
)
def test_test_data_need_the_labels_of_the_checkpoint(
    make_runner, tmp_path, tested, error, warning
):
    """Other names for the same labels may mean the same."""

    def prepare(cfg):
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None

    runner = make_runner(['cat', 'dog'], tested, 2, prepare)
    runner.train()
    (hook,) = (each for each in runner.hooks if isinstance(each, ClassCheckHook))
    hook.trained = ()
    runner.load_checkpoint(str(tmp_path / 'work' / 'epoch_1.pth'))
    with pytest.raises(UserError, match=error) if error else nullcontext():
        runner.test()
    (log,) = tmp_path.glob('work/*/*.log')
    assert ('only one of' in log.read_text()) == bool(warning)
    assert warning in log.read_text()


def test_names_of_two_classes_are_told_apart_by_no_label():
    """ImageNet has two classes of cranes. Names may come as an array, too."""
    hook, metainfo = ClassCheckHook(), dict(classes=np.array(['crane', 'ox', 'crane']))
    hook.after_load_checkpoint(None, dict(meta=dict(dataset_meta=metainfo)))
    hook._check_labels(['crane', 'ox', 'machine'])
    with pytest.raises(UserError, match="'ox' has label 0 in the test data and 1"):
        hook._check_labels(['ox', 'crane', 'crane'])


@pytest.mark.parametrize('number', [1, 3])
def test_model_and_data_need_the_same_number_of_classes(make_runner, number):
    runner = make_runner(['cat', 'dog'], ['cat', 'dog'], number)
    message = (
        rf'have 2 classes \(cat, dog.*model has {number}: set model.head.num_cl.*2'
    )
    for run in (runner.train, runner.test):
        with pytest.raises(UserError, match=message):
            run()
    assert runner.iter == 0


def test_distributed_models_are_checked(make_runner, process_group):
    runner = make_runner(['cat', 'dog'], ['cat', 'dog'], 3)
    runner.model = MMDistributedDataParallel(runner.model)
    with pytest.raises(UserError, match='model has 3'):
        runner.test()


def test_validation_needs_every_class(make_runner):
    with pytest.raises(UserError, match="have 2 .* data 1, but 'cat' is only in one"):
        make_runner(['cat', 'dog'], ['dog'], 2).train()


def test_validation_needs_the_same_names(make_runner):
    with pytest.raises(UserError, match="'ape' is only in one of them"):
        make_runner(['cat', 'dog'], ['cat', 'ape'], 2).train()


def test_validation_needs_the_same_order(make_runner):
    def prepare(cfg):
        cfg.val_dataloader.dataset.classes = ['ape', 'dog', 'cat']

    names = ['ape', 'cat', 'dog']
    message = "another order: label 1 is 'cat' in training and 'dog' in validation"
    with pytest.raises(UserError, match=message):
        make_runner(names, names, 3, prepare).train()


def test_training_needs_no_validation(make_runner):
    def prepare(cfg):
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None

    make_runner(['cat', 'dog'], [], 2, prepare).train()


@pytest.mark.parametrize('nameless', [['train'], ['val'], ['train', 'val']])
def test_data_without_class_names_pass(make_runner, nameless):
    def prepare(cfg):
        for split in nameless:
            cfg[f'{split}_dataloader'].dataset.with_label = False

    runner = make_runner(['cat', 'dog'], ['cat', 'dog'], 2, prepare)
    ClassCheckHook().before_train(runner)


def test_preprocessor_needs_as_many_classes_as_the_head(make_runner):
    runner = make_runner(['cat', 'dog'], ['cat', 'dog'], 2)
    runner.model.data_preprocessor.num_classes = None
    ClassCheckHook().before_train(runner)
    runner.model.data_preprocessor.num_classes = 10
    with pytest.raises(UserError, match='head has 2 .* preprocessor has 10: set model'):
        runner.train()
