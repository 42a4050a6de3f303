"""The examples of docs/datasets.md run as they are printed there."""

import re
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.datasets.labelled import check_counts, find_labelled
from mmmixmim.registry import DATASETS

from .conftest import ROOT, TINY_ARCH

PAGE = (ROOT / 'docs' / 'datasets.md').read_text()


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The example, in the file that the page names, started beside ``configs``."""
    (code,) = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
    (name,) = re.findall(r'whole config, `(configs/\S+\.py)`', PAGE)
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(code)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def photos(tmp_path):
    """The files that the page describes: two images of each class for each split."""
    folder = tmp_path / 'data' / 'birds'
    (folder / 'images').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, start in dict(train=1, val=7).items():
        lines = []
        for i in range(start, start + 6):
            pixels = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / 'images' / f'{i:04}.jpg')
            lines.append(f'{i:04}.jpg {i % 3}\n')
        (folder / f'{split}.txt').write_text(''.join(lines))
    return folder


def test_the_table_keeps_patients_apart(tmp_path):
    (text,) = re.findall(r'```csv\n(.*?)```', PAGE, re.DOTALL)
    (tmp_path / 'slices.csv').write_text(text)
    for line in text.splitlines()[1:]:
        file = tmp_path / line.split(',')[0]
        file.parent.mkdir(exist_ok=True)
        file.touch()
    found = find_labelled(tmp_path / 'slices.csv')
    check_counts(found)
    patients = {
        part: {file.parent.name for file, _ in found.part(part)}
        for part in ('train', 'val')
    }
    assert patients == dict(train={'p1', 'p3'}, val={'p2', 'p4'})


def test_example_is_short(config):
    code = config.read_text()
    assert len([line for line in code.splitlines() if line.strip()]) <= 14
    assert all(len(line) <= 88 for line in code.splitlines())


def test_example_reads_the_described_files(config, photos):
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    for split, start in dict(train=1, val=7, test=7).items():
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert dataset.metainfo['classes'] == ('crow', 'robin', 'wren')
        samples = list(dataset)
        labels = [sample['data_samples'].gt_label.item() for sample in samples]
        assert labels == [i % 3 for i in range(start, start + 6)]
        assert all(sample['inputs'].shape == (3, 224, 224) for sample in samples)


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())


def test_example_trains_and_validates(config, photos, tmp_path):
    """One real iteration of a small encoder; everything else as on the page."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(arch=dict(TINY_ARCH), init_cfg=None)
    cfg.model.head.in_channels = 128
    cfg.work_dir = str(tmp_path / 'work')
    cfg.train_cfg.max_epochs = 1
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    runner = Runner.from_cfg(cfg)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    # The head starts near 0, so every class is as likely as any other.
    assert losses.values == [pytest.approx(np.log(3), rel=0.01)]
    assert runner.model.head.fc.out_features == 3
    assert 'val/accuracy/top1' in runner.message_hub.log_scalars


def test_a_class_too_few_is_noticed(config, photos, tmp_path):
    """By the hook that the base recipe brings along."""
    config.write_text(
        config.read_text().replace(
            'head=dict(num_classes=len(classes))', 'head=dict(num_classes=2)'
        )
    )
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(arch=dict(TINY_ARCH), init_cfg=None)
    cfg.model.head.in_channels = 128
    cfg.work_dir = str(tmp_path / 'work')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
    with pytest.raises(ValueError, match='3 classes .*model has 2'):
        Runner.from_cfg(cfg).train()
