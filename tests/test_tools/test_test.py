"""tools/test.py on real files."""

import argparse
import pickle

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmmixmim.synthetic import write_dataset
from mmmixmim.validation import UserError

from ..scripts import CLASSIFY, PRETRAIN, SHAPES, call, error_line, load, passed, run

FEW = ('test_dataloader.num_workers=0',)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Checkpoint of an untrained classifier of digits."""
    cfg = Config.fromfile(CLASSIFY)
    init_default_scope(cfg.default_scope)
    path = tmp_path_factory.mktemp('classifier') / 'c.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return path


def test_predictions_are_saved(classifier, tmp_path):
    options = ['--work-dir', 'work', '--out', 'new.pkl', '--cfg-options', *FEW]
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'config.py').write_text('of the training')
    output = passed(run('test.py', CLASSIFY, classifier, *options, cwd=tmp_path))
    assert 'accuracy/top1' in output
    assert (tmp_path / 'work' / 'config.py').read_text() == 'of the training'
    assert 'c.pth' in (tmp_path / 'work' / 'test_config.py').read_text()
    predictions = pickle.loads((tmp_path / 'new.pkl').read_bytes())
    assert len(predictions) == 549 and len(predictions[0]['pred_score']) == 10


def test_checkpoints_must_hold_the_whole_model(pretrained, tmp_path):
    """A pretraining checkpoint has no classifier, so its score would be meaningless."""
    result = call('test.py', CLASSIFY, pretrained, cwd=tmp_path)
    line = error_line(result)
    assert 'accuracy' not in result.stdout
    assert 'epoch_1.pth is not a checkpoint of this whole model' in line
    assert 'missing keys in source state_dict: head.fc.weight' in line


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([PRETRAIN, 'nix.pth'], f'{PRETRAIN} has no test_dataloader'),
        ([CLASSIFY, 'nix.pth'], "no checkpoint file 'nix.pth'"),
        ([CLASSIFY, 'nix.pth', '--out', 'a.json'], 'must be a .pkl file, got a.json'),
        (
            [CLASSIFY, 'nix.pth', '--show-dir', 'a', '--cfg-options']
            + ['default_hooks.visualization=None'],
            '--show-dir needs the visualization hook',
        ),
    ],
    ids=['pretraining', 'checkpoint', 'out', 'hook'],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    assert message in error_line(call('test.py', *arguments, cwd=tmp_path))


def test_predictions_are_drawn(tmp_path):
    """The hooks of mmdet and mmseg draw one picture per image."""
    write_dataset(tmp_path / 'data', dict(train=2, val=2))
    for pattern in ('mask-rcnn*', '*upernet*'):
        (config,) = SHAPES.glob(f'{pattern}.py')
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        meta = dict(dataset_meta=dict(classes=cfg.classes))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'c.pth')
        folder = tmp_path / config.stem
        options = ['--work-dir', 'work', '--show-dir', folder, '--cfg-options']
        options += ['test_dataloader.dataset.data_root=data', *FEW]
        options += ['test_evaluator.ann_file=data/annotations/instances_val.json']
        if 'upernet' in pattern:
            options.pop()
        passed(call('test.py', config, 'c.pth', *options, cwd=tmp_path))
        assert len(list(folder.rglob('*.[jp][pn]g'))) == 2


def test_every_image_gets_its_own_picture(classifier, tmp_path):
    """Images of two folders with the same name, the last one in a smaller batch."""
    for name in ('a/x.png', 'b/x.png', 'c/y.png'):
        (tmp_path / name).parent.mkdir()
        Image.new('L', (32, 32)).save(tmp_path / name)
    (tmp_path / 'list.txt').write_text('a/x.png 0\nb/x.png 1\nc/y.png 2\n')
    pipeline = [
        dict(type='LoadImageFromFile', color_type='grayscale'),
        dict(type='PackInputs'),
    ]
    data = dict(type='CustomDataset', data_root='', ann_file='list.txt')
    config = tmp_path / 'listed.py'
    config.write_text(
        f'_base_ = {str(CLASSIFY)!r}\n'
        'test_dataloader = dict(batch_size=2, dataset='
        f'{data | dict(pipeline=pipeline, _delete_=True)!r})\n'
    )
    options = ['--work-dir', 'work', '--show-dir', 'drawn', '--cfg-options', *FEW]
    passed(call('test.py', config, classifier, *options, cwd=tmp_path))
    drawn = sorted(path.name for path in (tmp_path / 'drawn').iterdir())
    assert drawn == ['x.png_0.png', 'x.png_1.png', 'y.png_2.png']


@pytest.mark.parametrize(
    'hook, expected',
    [
        ('VisualizationHook', dict(enable=True, interval=1, out_dir='{}')),
        ('DetVisualizationHook', dict(draw=True, interval=1, test_out_dir='{}')),
        ('SegVisualizationHook', dict(draw=True, interval=1)),
        ('mmseg.SegVisualizationHook', dict(draw=True, interval=1)),
        ('OtherHook', None),
    ],
)
def test_every_prediction_is_drawn_by_the_hook_of_the_project(
    hook, expected, tmp_path, monkeypatch
):
    """Relative folders refer to the working directory, not to work_dir."""
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / 'pictures')
    cfg = Config(
        dict(
            test_dataloader=dict(a=1),
            default_hooks=dict(visualization=dict(type=hook, interval=50)),
            visualizer=dict(type='Any'),
        )
    )
    args = argparse.Namespace(config='c.py', checkpoint='c.pth', show_dir='pictures')
    apply_options = load('test.py').apply_options
    if expected is None:
        with pytest.raises(UserError, match='visualization hook'):
            apply_options(cfg, args)
        return
    apply_options(cfg, args)
    expected = {k: folder if v == '{}' else v for k, v in expected.items()}
    assert cfg.default_hooks.visualization == dict(type=hook) | expected
    assert cfg.load_from == 'c.pth'
    saved = cfg.visualizer.get('save_dir')
    assert saved == (folder if 'Seg' in hook else None)
