"""tools/linear_probe.py on real files."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.device import utils
from mmengine.registry import init_default_scope
from PIL import Image
from torch import nn

from mmmixmim.checkpoint import fit_in_channels
from mmmixmim.evaluation.linear_probe import labelled_loaders
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from ..scripts import (
    CLASSIFY,
    FOLDER,
    ONE_ITERATION,
    PRETRAIN,
    call,
    error_line,
    passed,
    run,
)


@pytest.fixture
def probe(tmp_path):
    """Run the script and return the saved accuracies."""

    def probe(*arguments, start=call):
        out = tmp_path / 'new' / 'probe.json'
        result = start('linear_probe.py', CLASSIFY, *arguments, '--out', out, cwd='.')
        figures = json.loads(out.read_text())
        for name, figure in figures.items():
            assert f'{name:>5} labels per class: {figure:.2f} %' in passed(result)
        return figures

    return probe


def test_linear_probe(pretrained, probe, monkeypatch):
    options = ['--samples-per-class', '10', 'all']
    trained = probe(pretrained, *options, start=run)
    monkeypatch.setattr(utils, 'DEVICE', 'mps')  # a Mac's CPU computes
    untrained = probe(*options)
    assert set(trained) == {'10', 'all'} and trained != untrained
    for figures in (trained, untrained):
        assert 30 < figures['10'] < figures['all'] < 100
    assert probe(*options) == untrained
    assert probe(*options, '--seed', 1) != untrained


def test_untrained_probe_starts_where_pretraining_does(probe, tmp_path):
    """With the same seed, the untrained encoder is the one pretraining starts from."""
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_ITERATION]
    options += ['optim_wrapper.optimizer.lr=0', 'randomness.seed=3']
    passed(call('train.py', PRETRAIN, *options, cwd=tmp_path))
    started = probe(tmp_path / 'epoch_1.pth', '--seed', 7)
    assert probe('--seed', 3) == started != probe('--seed', 7)


def test_config_that_imports_its_types(imported_types, pretrained, tmp_path):
    """Without a checkpoint, that of its init_cfg is not loaded either."""
    for checkpoint in ([], [pretrained]):
        result = call('linear_probe.py', imported_types, *checkpoint, cwd=tmp_path)
        assert 'all labels per class: ' in passed(result)


def test_few_labels_are_averaged_over_draws(monkeypatch, tmp_path):
    """One draw suffices for all labels; every other draw has its own seed."""
    asked = []

    def linear_probe(train, test, count, draw):
        asked.append((len(train[1]), len(test[1]), count, draw))
        return 10.0 * draw + (count or 5)

    monkeypatch.setattr('mmmixmim.evaluation.linear_probe', linear_probe)
    monkeypatch.setattr(
        'mmmixmim.evaluation.extract_features',
        lambda model, loader: (None, np.zeros(len(loader.dataset), int)),
    )
    options = ['--samples-per-class', 3, 'all', '--draws', 4, '--out', 'p.json']
    passed(call('linear_probe.py', CLASSIFY, *options, cwd=tmp_path))
    draws = [(3, draw) for draw in range(4)] + [(None, 0)]
    assert asked == [(1248, 549, *draw) for draw in draws]
    assert json.loads((tmp_path / 'p.json').read_text()) == {'3': 18.0, 'all': 5.0}


def test_prefix_and_channels_are_those_of_the_config(monkeypatch, tmp_path):
    """A teacher of colour images probes grey ones."""
    cfg = Config.fromfile(CLASSIFY)
    init_default_scope(cfg.default_scope)
    state = {}
    for name in ('', 'teacher.'):
        source = MODELS.build(cfg.model.backbone | dict(in_channels=3, init_cfg=None))
        nn.init.normal_(source.patch_embed.proj.weight)
        entries = source.state_dict().items()
        state |= {f'{name}backbone.{key}': value for key, value in entries}
    torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
    loaded = []

    def extract_features(model, loader):
        loaded.append(model.backbone.patch_embed.proj.weight)
        return None, np.zeros(len(loader.dataset), int)

    monkeypatch.setattr('mmmixmim.evaluation.extract_features', extract_features)
    monkeypatch.setattr('mmmixmim.evaluation.linear_probe', lambda *args: 10.0)
    start = dict(type='Pretrained', prefix='teacher.backbone.', in_channels='mean')
    options = [f'model.backbone.init_cfg.{key}={start[key]}' for key in start]
    options = ['weights.pth', '--cfg-options', *options]
    passed(call('linear_probe.py', CLASSIFY, *options, cwd=tmp_path))
    assert torch.equal(
        loaded[0], fit_in_channels(source.patch_embed.proj.weight, 1, 'mean')
    )


def test_training_images_are_not_augmented():
    cfg = Config.fromfile(CLASSIFY)
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    pipeline = deepcopy(cfg.train_dataloader.dataset.pipeline)
    assert pipeline != cfg.val_dataloader.dataset.pipeline
    loaders = labelled_loaders(cfg)
    assert [len(loader.dataset) for loader in loaders] == [1248, 549]
    first, second = (next(iter(loaders[0]))['inputs'] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert cfg.train_dataloader.dataset.pipeline == pipeline


def test_images_from_python_are_no_wrapper():
    cfg = Config.fromfile(CLASSIFY)
    cfg.train_dataloader.dataset = dict(type='WrappedDataset', dataset='my_images')
    init_default_scope(cfg.default_scope)
    with pytest.raises(UserError, match='my_images.* came from Python'):
        labelled_loaders(cfg)


def test_training_images_in_wrappers_are_not_augmented():
    cfg = Config.fromfile(CLASSIFY)
    init_default_scope(cfg.default_scope)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    data = cfg.train_dataloader.dataset
    balanced = dict(type='ClassBalancedDataset', oversample_thr=1e-3, dataset=data)
    repeated = dict(type='RepeatDataset', times=2, dataset=balanced)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[data, repeated])
    cfg.val_dataloader.dataset = dict(
        type='KFoldDataset',
        num_splits=3,
        test_mode=True,
        dataset=cfg.val_dataloader.dataset,
    )
    train, val = labelled_loaders(cfg)
    assert (len(train.dataset), len(val.dataset)) == (3 * 1248, 549 // 3)
    for i in (0, 1248, 2 * 1248):
        assert torch.equal(train.dataset[i]['inputs'], train.dataset[0]['inputs'])


def test_checkpoint_that_does_not_fit_is_refused(pretrained, tmp_path):
    options = ['--cfg-options', 'model.backbone.arch.embed_dims=16']
    options += ['model.head.in_channels=64']
    result = call('linear_probe.py', CLASSIFY, pretrained, *options, cwd=tmp_path)
    assert f'{pretrained} does not fit this MixMIMTransformer' in error_line(result)
    assert 'labels per class' not in result.stdout


def test_a_folder_in_place_of_the_result_is_refused(tmp_path):
    result = call('linear_probe.py', CLASSIFY, '--out', tmp_path, cwd=tmp_path)
    assert f"'{tmp_path}' is a folder" in error_line(result) and not result.stdout


def test_config_without_labels_is_refused(image_folder, tmp_path):
    line = error_line(call('linear_probe.py', FOLDER, cwd=tmp_path))
    assert f'{FOLDER} has no labelled val_dataloader' in line
    options = [
        f'{split}_dataloader.dataset.data_root={image_folder}'
        for split in ('train', 'val')
    ]
    options += ['val_dataloader.dataset.part=train', 'val_dataloader.num_workers=0']
    result = call('linear_probe.py', FOLDER, '--cfg-options', *options, cwd=tmp_path)
    assert 'training images of' in error_line(result)


def test_other_classes_in_validation_are_refused(tmp_path):
    """Without `b`, label 1 would be another class than in training."""
    for split, names in dict(train='abc', val='ac').items():
        for name in names:
            path = tmp_path / split / name / 'x.png'
            path.parent.mkdir(parents=True)
            Image.new('RGB', (32, 32)).save(path)
    options = [
        f'{split}_dataloader.dataset.data_root={tmp_path / split}'
        for split in ('train', 'val')
    ]
    options.append('val_dataloader.num_workers=0')
    (config,) = FOLDER.parent.glob('mixmim-tiny_*_folder.py')
    line = error_line(
        call('linear_probe.py', config, '--cfg-options', *options, cwd=tmp_path)
    )
    assert "have 3 classes and the validation data 2, but 'b' is only in one" in line


@pytest.mark.parametrize(
    'options',
    [['--samples-per-class', 'abc'], ['--samples-per-class', '0']] + [['--draws', '0']],
)
def test_invalid_numbers_are_refused(options, tmp_path):
    result = call('linear_probe.py', CLASSIFY, *options, cwd=tmp_path)
    assert result.returncode == 2
    assert f'{options[-1]!r} is not a positive int' in result.stderr
