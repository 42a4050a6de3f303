"""Steps and figures of tools/transfer.py, and a quick run."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from ..scripts import load, passed, run


@pytest.fixture(scope='module')
def script():
    return load('transfer.py')


@pytest.mark.slow
def test_transfer(tmp_path):
    """All steps of the comparison, one epoch each on a few images."""
    options = ['--quick', '--work-dir', 'work']
    output = passed(run('transfer.py', *options, cwd=tmp_path))
    figures = json.loads((tmp_path / 'work' / 'figures.json').read_text())
    assert set(figures) == {'scratch', 'mixmim'}
    for row in figures.values():
        assert set(row) == {'bbox_AP', 'segm_AP', 'mIoU'}
        assert all(0 <= figure <= 1 for figure in row.values())
    assert f'{figures["mixmim"]["mIoU"]:.3f}' in output
    assert Image.open(tmp_path / 'work' / 'predictions.png').width > 500


@pytest.mark.parametrize('quick', [False, True])
def test_plan(script, quick):
    draw, pretrain, detect, segment = script.plan(Path('w'), 7, quick)
    words = list(map(str, draw.command))
    assert words[:4] == [str(script.TOOLS / 'make_shapes.py'), 'w/data', '--seed', '7']
    sizes = ['--unlabelled', '64', '--train', '16', '--val', '8']
    assert words[4:] == (sizes if quick else [])
    epochs = 1 if quick else Config.fromfile(script.PRETRAIN).train_cfg.max_epochs
    checkpoint = f'model.backbone.init_cfg.checkpoint=w/pretrain/epoch_{epochs}.pth'
    names = []
    for step, config in (
        (pretrain, script.PRETRAIN),
        *((step, script.DETECT) for step in detect),
        *((step, script.SEGMENT) for step in segment),
    ):
        train, path, option, work_dir, *options = map(str, step.command)
        assert (train, path) == (str(script.TOOLS / 'train.py'), str(config))
        assert (option, work_dir) == ('--work-dir', f'w/{step.name}')
        assert options[:2] == ['--cfg-options', 'randomness.seed=7']
        own = Config.fromfile(config).train_cfg.max_epochs
        assert step.epochs == (1 if quick else own)
        assert ('train_cfg.max_epochs=1' in options) == quick
        assert (checkpoint in options) == step.name.endswith('-mixmim')
        assert any(each.startswith('train_dataloader.') for each in options)
        names.append(step.name)
    assert names == [
        'pretrain',
        *('detect-scratch', 'detect-mixmim', 'segment-scratch', 'segment-mixmim'),
    ]
    # Both initialisations use the same options otherwise.
    for scratch, mixmim in (detect, segment):
        start = [each for each in mixmim.command if each not in scratch.command]
        assert len(start) == 3 and checkpoint in start and scratch.cost == mixmim.cost


def test_last_figure_of_a_training(script):
    log = 'coco/bbox_mAP: 0.1  coco/bbox_mAP_50: 0.9\ncoco/bbox_mAP: 0.25  a: 1'
    assert script.last('coco/bbox_mAP', log) == 0.25
    assert script.last('coco/bbox_mAP', 'coco/bbox_mAP: -1.0') == -1
    empty = 'The testing results of the whole dataset is empty.'
    assert script.last('coco/bbox_mAP', empty) == 0
    assert script.last('coco/bbox_mAP', f'{log}\n{empty}') == 0.25
    with pytest.raises(IndexError):
        script.last('coco/bbox_mAP', 'nothing was evaluated')


def test_figures_of_both_starts(script):
    outputs = {
        'detect-scratch': 'coco/bbox_mAP: 0.1 coco/segm_mAP: 0.2',
        'detect-mixmim': 'coco/bbox_mAP: 0.3 coco/segm_mAP: 0.4',
        'segment-scratch': 'aAcc: 90.0  mIoU: 50.0  mAcc: 1.0',
        'segment-mixmim': 'aAcc: 90.0  mIoU: 60.0  mAcc: 1.0',
    }
    assert script.read_figures(outputs) == dict(
        scratch=dict(bbox_AP=0.1, segm_AP=0.2, mIoU=0.5),
        mixmim=dict(bbox_AP=0.3, segm_AP=0.4, mIoU=0.6),
    )
