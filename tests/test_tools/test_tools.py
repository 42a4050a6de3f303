"""The command-line tools, each in a process of its own, on real files."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image

from mmmixmim.synthetic import write_dataset

from ..conftest import ROOT

DIGITS = ROOT / 'configs' / 'digits'
PRETRAIN = DIGITS / 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'
CLASSIFY = DIGITS / 'mixmim-tiny_1xb64-coslr-20e_digits.py'
FOLDER = ROOT / 'configs' / 'folder' / 'mixmim_mixmim-tiny_1xb64-coslr-300e_folder.py'
ONE_EPOCH = ('train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1')
NO_WORKERS = 'train_dataloader.num_workers=0'


def run(tool, *arguments, cwd):
    command = [sys.executable, ROOT / 'tools' / tool, *arguments]
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True
    )


def run_well(tool, *arguments, cwd):
    result = run(tool, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """Checkpoint of one epoch of pretraining on the digits."""
    folder = tmp_path_factory.mktemp('pretrained')
    options = ['--work-dir', folder, '--cfg-options', *ONE_EPOCH]
    output = run_well('train.py', PRETRAIN, *options, cwd=folder)
    assert 'eta:' in output
    assert (folder / 'config.py').exists() and not (folder / PRETRAIN.name).exists()
    return folder / 'epoch_1.pth'


def test_pretraining_saves_the_whole_model(pretrained):
    state = torch.load(pretrained, weights_only=False)['state_dict']
    assert {name.split('.')[0] for name in state} == {'backbone', 'neck'}


def test_linear_probe(pretrained, tmp_path):
    out = tmp_path / 'probe.json'
    options = ['--samples-per-class', '10', 'all', '--out', out]
    run_well('linear_probe.py', CLASSIFY, pretrained, *options, cwd=tmp_path)
    trained = json.loads(out.read_text())
    run_well('linear_probe.py', CLASSIFY, *options, cwd=tmp_path)
    untrained = json.loads(out.read_text())
    assert set(trained) == {'10', 'all'} and trained != untrained
    assert all(30 < figure < 100 for figure in (*trained.values(), *untrained.values()))


def test_untrained_probe_starts_where_pretraining_does(tmp_path):
    """The same seed gives the probe the encoder that pretraining began with."""
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH]
    options += [
        'optim_wrapper.optimizer.lr=0',
        'optim_wrapper.optimizer.weight_decay=0',
    ]
    run_well('train.py', PRETRAIN, *options, cwd=tmp_path)
    figures = []
    for checkpoint in ([tmp_path / 'epoch_1.pth'], []):
        out = tmp_path / 'probe.json'
        run_well('linear_probe.py', CLASSIFY, *checkpoint, '--out', out, cwd=tmp_path)
        figures.append(json.loads(out.read_text()))
    assert figures[0] == figures[1]


def test_visualize_reconstruction(pretrained, tmp_path):
    options = ['--num', '3', '--out', 'new/picture.png']
    options += ['--cfg-options', 'train_dataloader.dataset.split=test']
    run_well(
        'visualize_reconstruction.py', PRETRAIN, pretrained, *options, cwd=tmp_path
    )
    assert min(Image.open(tmp_path / 'new' / 'picture.png').size) > 200


def test_finetuning_starts_from_the_pretrained_encoder(pretrained, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH]
    options += ['train_cfg.val_interval=1', 'optim_wrapper.optimizer.lr=0']
    options += ['optim_wrapper.optimizer.weight_decay=0']
    options += ['model.backbone.init_cfg.type=Pretrained']
    options += [f'model.backbone.init_cfg.checkpoint={pretrained}']
    options += ['model.backbone.init_cfg.prefix=backbone.']
    output = run_well('train.py', CLASSIFY, *options, cwd=tmp_path)
    assert 'accuracy/top1' in output
    before = torch.load(pretrained, weights_only=False)['state_dict']
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    encoder = [name for name in after if name.startswith('backbone.')]
    assert len(encoder) > 50
    assert all(torch.equal(before[name], after[name]) for name in encoder)


def test_testing_takes_a_checkpoint_of_the_whole_model(pretrained, tmp_path):
    """A pretraining checkpoint has no classifier: its score would mean nothing."""
    result = run('test.py', CLASSIFY, pretrained, cwd=tmp_path)
    assert result.returncode == 1 and 'accuracy' not in result.stdout
    (line,) = [x for x in result.stderr.splitlines() if x.startswith('error: ')]
    assert 'epoch_1.pth is not a checkpoint of this whole model' in line
    assert 'missing keys in source state_dict: head.fc.weight' in line


def test_pretraining_on_a_folder(image_folder, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH, NO_WORKERS]
    options += [f'train_dataloader.dataset.data_root={image_folder}']
    options += ['train_dataloader.batch_size=2']
    output = run_well('train.py', FOLDER, *options, cwd=tmp_path)
    assert '[1][3/3]' in output and (tmp_path / 'epoch_1.pth').exists()
    # 1.5e-4 for 256 images, so two have 1.17e-6. The warm-up of 40 epochs of three
    # iterations is at its second step when the third iteration is logged.
    logs = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert json.loads(logs[-1])['lr'] == pytest.approx(1.5e-4 * 2 / 256 * 2 / 120)


def test_recipes_start_from_load_from_too(image_folder, tmp_path):
    """Without a checkpoint for the backbone; the classifier is loaded whole."""
    config = ROOT / 'configs' / 'folder' / 'mixmim-tiny_1xb64-coslr-100e_folder.py'
    cfg = Config.fromfile(config)
    init_default_scope('mmmixmim')
    cfg.model.backbone.init_cfg = None
    cfg.model.head.num_classes = 2
    source = MODELS.build(cfg.model).state_dict()
    torch.save(dict(state_dict=source), tmp_path / 'c.pth')
    shutil.copytree(image_folder / 'deep', image_folder / 'other')
    options = ['--work-dir', 'work', '--cfg-options', *ONE_EPOCH, NO_WORKERS]
    for split in ('train', 'val', 'test'):
        options += [f'{split}_dataloader.dataset.data_root={image_folder}']
    options += ['model.head.num_classes=2', 'model.data_preprocessor.num_classes=2']
    result = run('train.py', config, *options, cwd=tmp_path)
    assert 'error: The backbone starts from a pretrained' in result.stderr
    options += ['load_from=c.pth', 'optim_wrapper.optimizer.lr=0']
    run_well('train.py', config, *options, cwd=tmp_path)
    saved = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    for name, value in saved['state_dict'].items():
        assert torch.equal(value, source[name]), name


@pytest.mark.parametrize('content', ['missing', 'empty'])
def test_folder_without_images_ends_in_one_clear_error(tmp_path, content):
    folder = tmp_path / 'images'
    if content == 'empty':
        folder.mkdir()
    options = [
        '--cfg-options',
        NO_WORKERS,
        f'train_dataloader.dataset.data_root={folder}',
    ]
    result = run('train.py', FOLDER, *options, cwd=tmp_path)
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    expected = 'no image folder' if content == 'missing' else 'holds no image'
    assert expected in message and str(folder) in message and 'data_root=' in message


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_image_is_named(image_folder, tmp_path, workers):
    (image_folder / 'broken.jpg').write_bytes(b'no image')
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH]
    options += [f'train_dataloader.num_workers={workers}']
    options += [f'train_dataloader.dataset.data_root={image_folder}']
    result = run('train.py', FOLDER, *options, cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    path = image_folder / 'broken.jpg'
    assert f"error: The image '{path}' cannot be read: it is no image" in result.stderr


def test_probe_refuses_a_checkpoint_that_does_not_fit(pretrained, tmp_path):
    options = ['--cfg-options', 'model.backbone.arch.embed_dims=16']
    options += ['model.head.in_channels=64']
    result = run('linear_probe.py', CLASSIFY, pretrained, *options, cwd=tmp_path)
    assert result.returncode == 1 and 'labels per class' not in result.stdout
    assert f'error: {pretrained} does not fit this MixMIMTransformer' in result.stderr


def test_tools_refuse_numbers_that_make_no_sense(tmp_path):
    for tool, options in {
        'linear_probe.py': [CLASSIFY, '--samples-per-class', 'abc'],
        'visualize_reconstruction.py': [PRETRAIN, 'some.pth', '--num', '0'],
    }.items():
        result = run(tool, *options, cwd=tmp_path)
        assert result.returncode == 2 and 'is no whole number from 1' in result.stderr


@pytest.mark.parametrize(
    'option, message',
    [
        ('model.backbone.arch=giant', "Unknown arch 'giant'"),
        ('model.mask_ratio=1.5', 'got mask_ratio=1.5'),
        ('model.backbone.in_channels=3', r'(B, 3, H, W), got (64, 1, 32, 32)'),
        (
            'train_dataloader.dataset.pipeline.1.scale=30',
            'image size 30x30 is not divisible by the stride 8',
        ),
        ('model.backbone.type=NoSuchEncoder', 'NoSuchEncoder is not in the'),
        ('model.backbone.img_sizes=32', 'Check the entry img_sizes in the config'),
        ('train_cfgs.max_epochs=1', 'there is no train_cfgs. Did you mean train_cfg?'),
    ],
)
def test_bad_values_end_in_one_line(tmp_path, option, message):
    options = ['--cfg-options', NO_WORKERS, option]
    if 'in_channels' in option:
        options.append('model.data_preprocessor=None')
    result = run('train.py', PRETRAIN, *options, cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith('error: ')]
    assert message in line


@pytest.mark.parametrize(
    'config',
    [
        'coco/mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco',
        'ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512',
    ],
)
def test_missing_data_are_named(config, tmp_path):
    options = ['--cfg-options', 'optim_wrapper.type=OptimWrapper']
    config = ROOT / 'configs' / f'{config}.py'
    result = run('train.py', config, *options, cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    root = dict(coco='data/coco', ade20k='data/ade/ADEChallengeData2016')
    message = f'error: {root[config.parent.name]} is not there, which train_dataloader'
    assert message in result.stderr

    (tmp_path / root[config.parent.name]).mkdir(parents=True)
    if config.parent.name == 'coco':
        result = run('train.py', config, *options, cwd=tmp_path)
        file = 'data/coco/annotations/instances_train2017.json'
        assert f'error: {file} is not there' in result.stderr
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text('{}')
    result = run('train.py', config, *options, cwd=tmp_path)
    folder = dict(coco='train2017', ade20k='images/training')[config.parent.name]
    folder = f'{root[config.parent.name]}/{folder} is not there, which train_dataloader'
    assert f'error: {folder}' in result.stderr

    result = run('test.py', config, 'c.pth', *options, cwd=tmp_path)
    assert 'is not there, which test_dataloader.dataset' in result.stderr


def test_missing_data_of_joined_datasets_are_named(tmp_path):
    (config,) = (ROOT / 'configs' / 'shapes').glob('mask-rcnn*.py')
    write_dataset(tmp_path / 'data', dict(train=2, val=1))
    joined = tmp_path / 'joined.py'
    joined.write_text(
        f'_base_ = {str(config)!r}\n'
        'both = [_base_.train_dataloader.dataset] * 2\n'
        'train_dataloader = dict(dataset=dict('
        "_delete_=True, type='ConcatDataset', datasets=both))\n"
    )
    result = run('train.py', joined, cwd=tmp_path)
    assert 'which train_dataloader.dataset.datasets.0.data_root' in result.stderr


def test_predictions_are_drawn(tmp_path):
    """By the hooks of all three projects, one picture for each image."""
    write_dataset(tmp_path / 'data', dict(train=2, val=2))
    for pattern in ('mask-rcnn*', '*upernet*'):
        (config,) = (ROOT / 'configs' / 'shapes').glob(f'{pattern}.py')
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        meta = dict(dataset_meta=dict(classes=cfg.classes))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'c.pth')
        folder = tmp_path / config.stem
        options = ['--work-dir', 'work', '--show-dir', folder, '--cfg-options']
        options += ['test_dataloader.dataset.data_root=data']
        options += ['test_evaluator.ann_file=data/annotations/instances_val.json']
        if 'upernet' in pattern:
            options.pop()
        run_well('test.py', config, 'c.pth', *options, cwd=tmp_path)
        assert len(list(folder.rglob('*.[jp][pn]g'))) == 2


def test_probe_refuses_a_config_without_labels(tmp_path):
    result = run('linear_probe.py', PRETRAIN, cwd=tmp_path)
    assert result.returncode == 1
    assert 'has no val_dataloader' in result.stderr.strip().splitlines()[-1]


def test_convert_checkpoint(pretrained, tmp_path):
    theirs, back = tmp_path / 'theirs.pth', tmp_path / 'back.pth'
    output = run_well(
        'convert_checkpoint.py', pretrained, theirs, '--to', 'authors', cwd=tmp_path
    )
    assert 'pretraining model' in output and 'layout mmmixmim' in output
    assert '  added 6 index buffers' in output and 'patch merging' not in output
    assert (
        '  left out what is beside the weights: ' in output and 'meta.epoch' in output
    )
    content = torch.load(theirs, weights_only=True)
    assert 'mask_token' in content['model']
    run_well('convert_checkpoint.py', theirs, back, cwd=tmp_path)
    before = torch.load(pretrained, weights_only=False)['state_dict']
    after = torch.load(back, weights_only=True)['state_dict']
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)

    meta = dict(dataset_meta=dict(classes=('cat', 'dog')))
    torch.save(dict(state_dict=after, meta=meta), tmp_path / 'named.pth')
    run_well('convert_checkpoint.py', 'named.pth', back, cwd=tmp_path)
    assert torch.load(back, weights_only=True)['meta'] == meta

    result = run('convert_checkpoint.py', theirs, tmp_path, cwd=tmp_path)
    assert result.returncode == 1 and 'is a folder' in result.stderr
    result = run('convert_checkpoint.py', theirs, theirs, cwd=tmp_path)
    assert result.returncode == 1 and 'theirs.pth is the source' in result.stderr
    result = run('convert_checkpoint.py', __file__, theirs, cwd=tmp_path)
    assert result.returncode == 1 and result.stderr.startswith('error: ')


@pytest.mark.parametrize(
    'config, option, total',
    [
        (CLASSIFY, ['--shape', '32'], '910,384'),
        (FOLDER, ['--shape', '64', '96'], '16,578,876'),
    ],
)
def test_get_flops(config, option, total, tmp_path):
    output = run_well('get_flops.py', config, *option, cwd=tmp_path)
    name, parameters, macs = output.splitlines()[-1].split()
    assert (name, parameters) == ('total', total) and float(macs) > 0
    size = 'x'.join((option[1:] * 2)[:2])
    assert f'one image of {size} pixels' in output


def test_get_flops_of_a_detector(tmp_path):
    """Every part is counted, also those called by other names than forward."""
    backbone = dict(
        _delete_=True,
        type='mmmixmim.MixMIMTransformer',
        arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        out_indices=(0, 1, 2, 3),
    )
    model = dict(backbone=backbone, neck=dict(in_channels=[16, 32, 64, 128]))
    base = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    (tmp_path / 'detector.py').write_text(f'_base_ = {base!r}\nmodel = {model!r}\n')
    options = ['detector.py', '--shape', '64']
    output = run_well('get_flops.py', *options, cwd=tmp_path).splitlines()
    rows = {line.split()[0]: float(line.split()[-1]) for line in output[-6:]}
    total = rows.pop('total')
    assert all(rows[name] > 0 for name in ('backbone', 'neck', 'rpn_head', 'roi_head'))
    assert sum(rows.values()) == pytest.approx(total, rel=1e-3)


@pytest.mark.slow
def test_transfer(tmp_path):
    """All steps of the comparison, one epoch each on a few images."""
    output = run_well('transfer.py', '--quick', '--work-dir', 'work', cwd=tmp_path)
    figures = json.loads((tmp_path / 'work' / 'figures.json').read_text())
    assert set(figures) == {'scratch', 'mixmim'}
    for row in figures.values():
        assert set(row) == {'bbox_AP', 'segm_AP', 'mIoU'}
        assert all(0 <= figure <= 1 for figure in row.values())
    assert f'{figures["mixmim"]["mIoU"]:.3f}' in output
    assert Image.open(tmp_path / 'work' / 'predictions.png').width > 500
