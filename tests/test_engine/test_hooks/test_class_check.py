import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from ...conftest import ROOT

CONFIG = ROOT / 'configs' / 'folder' / 'mixmim-tiny_1xb64-coslr-100e_folder.py'


@pytest.fixture
def run(tmp_path):
    """Runner of an epoch on folders of classes."""

    def make(train, val, num_classes):
        for split, classes in dict(train=train, val=val).items():
            for name in classes:
                path = tmp_path / split / name / 'a.png'
                path.parent.mkdir(parents=True)
                Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(path)
        cfg = Config.fromfile(CONFIG)
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
        return Runner.from_cfg(cfg)

    return make


def test_same_classes_train_and_test(run):
    runner = run(['cat', 'dog'], ['cat', 'dog'], 2)
    runner.train()
    runner.test()


def test_number_of_the_model_must_be_that_of_the_data(run):
    runner = run(['cat', 'dog'], ['cat', 'dog'], 3)
    message = r'have 2 classes \(cat, dog.*model 3: set model.head.num_classes=2'
    with pytest.raises(ValueError, match=message):
        runner.train()
    with pytest.raises(ValueError, match=message):
        runner.test()


def test_a_class_must_not_lack_in_validation(run):
    with pytest.raises(ValueError, match="have 2 .*validation data 1.*'cat' differs"):
        run(['cat', 'dog'], ['dog'], 2).train()


def test_the_preprocessor_has_as_many_classes_as_the_head(run):
    runner = run(['cat', 'dog'], ['cat', 'dog'], 2)
    runner.model.data_preprocessor.num_classes = 10
    with pytest.raises(ValueError, match='head knows 2 .* preprocessor 10: set model'):
        runner.train()
