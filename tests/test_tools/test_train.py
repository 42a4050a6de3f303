"""tools/train.py on real files."""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.device import utils
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import MODELS, init_default_scope

from mmmixmim.registry import HOOKS
from mmmixmim.synthetic import write_dataset
from mmmixmim.validation import UserError

from ..conftest import ROOT
from ..scripts import (
    CLASSIFY,
    FOLDER,
    NO_WORKERS,
    ONE_EPOCH,
    ONE_ITERATION,
    PRETRAIN,
    SHAPES,
    call,
    error_line,
    load,
    passed,
    run,
)

on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without')


def test_pretraining_saves_the_whole_model(pretraining):
    folder, output = pretraining
    assert 'eta:' in output
    assert (folder / 'config.py').exists() and not (folder / PRETRAIN.name).exists()
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=False)
    assert {name.split('.')[0] for name in checkpoint['state_dict']} == {
        'backbone',
        'neck',
    }


def test_progress_is_read_from_real_logs(pretraining, tmp_path, monkeypatch, capsys):
    """The demo parses the log lines of MMEngine."""
    output = pretraining[1]
    (tmp_path / 'output.txt').write_text(output)
    (tmp_path / 'again.py').write_text('print(open("output.txt").read())')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(type(sys.stdout), 'isatty', lambda self: True)
    steps = load('steps.py')
    step = steps.Step('train', ['again.py'], cost=1, epochs=2)
    steps.run_steps([step], tmp_path)
    shown = re.findall(r'(\d+)%  loss ([\d.]+)', capsys.readouterr().out)
    pattern = r'Epoch\(train\)\s+\[1\]\[\s*(\d+)/(\d+)\].* loss: ([\d.]+)'
    lines = re.findall(pattern, output)
    assert lines and len(shown) == len(lines)
    for (share, loss), (i, n, expected) in zip(shown, lines, strict=True):
        assert int(share) == round(100 * int(i) / (2 * int(n)))
        assert expected.startswith(loss)


def test_finetuning_starts_from_the_pretrained_encoder(pretrained, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH]
    options += ['train_cfg.val_interval=1', 'optim_wrapper.optimizer.lr=0']
    options += ['optim_wrapper.optimizer.weight_decay=0', *ONE_ITERATION]
    options += ['model.backbone.init_cfg.type=Pretrained']
    options += [f'model.backbone.init_cfg.checkpoint={pretrained}']
    options += ['model.backbone.init_cfg.prefix=backbone.']
    output = passed(call('train.py', CLASSIFY, *options, cwd=tmp_path))
    assert 'accuracy/top1' in output
    before = torch.load(pretrained, weights_only=False)['state_dict']
    after = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    encoder = [name for name in after if name.startswith('backbone.')]
    assert len(encoder) > 50
    assert all(torch.equal(before[name], after[name]) for name in encoder)


def test_pretraining_on_a_folder(image_folder, tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH, NO_WORKERS]
    options += [f'train_dataloader.dataset.data_root={image_folder}']
    options += ['train_dataloader.batch_size=2']
    output = passed(call('train.py', FOLDER, *options, cwd=tmp_path))
    # The fifth image makes no batch.
    assert '[1][2/2]' in output and (tmp_path / 'epoch_1.pth').exists()
    # 1.5e-4 for 256 images is 1.17e-6 for two. The second iteration logs the first of
    # 80 warm-up steps (40 epochs of two iterations).
    logs = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert json.loads(logs[-1])['lr'] == pytest.approx(1.5e-4 * 2 / 256 * 1 / 80)


def test_recipes_start_from_load_from_too(image_folder, tmp_path):
    """load_from replaces the checkpoint of the backbone: all weights are loaded."""
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
    line = error_line(call('train.py', config, *options, cwd=tmp_path))
    assert 'backbone' in line and 'pretrained' in line
    options += ['load_from=c.pth', 'optim_wrapper.optimizer.lr=0']
    passed(call('train.py', config, *options, cwd=tmp_path))
    saved = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=False)
    for name, value in saved['state_dict'].items():
        assert torch.equal(value, source[name]), name


def test_mmpretrains_plot_of_the_schedule(tmp_path):
    """Its loader is a list of batches, and its runner logs nothing."""
    tools = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
    path = tools / 'visualization' / 'vis_scheduler.py'
    options = ['--dataset-size', 192, '--not-show', '--save-path', 'rate.png']
    output = passed(call(path, FOLDER, *options, cwd=tmp_path))
    assert '900/900' in output and (tmp_path / 'rate.png').exists()


def test_resuming_continues_the_latest_checkpoint(pretraining, tmp_path):
    shutil.copytree(pretraining[0], tmp_path / 'work')
    options = ['--work-dir', 'work', '--cfg-options', *ONE_ITERATION[1:]]
    options += ['train_cfg.max_epochs=2']
    output = passed(call('train.py', PRETRAIN, '--resume', *options, cwd=tmp_path))
    assert 'resumed epoch: 1' in output and (tmp_path / 'work' / 'epoch_2.pth').exists()


HOOK = """
from mmmixmim.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class CountingHook(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        print('counted', runner.iter + 1)
"""


SIGNAL_HOOK = """
import os, signal
from mmmixmim.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class CountingHook(Hook):
    def before_train_iter(self, runner, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
"""


def test_terminated_training_ends_with_status_75_and_goes_on(hooked, tmp_path):
    config, folder = hooked
    (folder / 'my_hooks.py').write_text(SIGNAL_HOOK)
    options = ['--work-dir', 'work', '--cfg-options', *ONE_ITERATION]
    options += ['train_cfg.max_epochs=2', 'custom_imports.imports=[my_hooks]']
    path = os.pathsep.join((str(folder), os.environ.get('PYTHONPATH', '')))
    stopped = run('train.py', config, *options, cwd=tmp_path, PYTHONPATH=path)
    assert stopped.returncode == 75, stopped.stderr
    last = (stopped.stdout + stopped.stderr).rstrip().splitlines()[-1]
    assert 'To continue: python ' in last
    assert last.endswith("custom_imports.imports=[my_hooks]' --resume")
    options[-1] = 'custom_hooks=[]'
    result = call('train.py', config, '--resume', *options, cwd=tmp_path)
    assert 'resumed epoch: 0, iter: 1' in passed(result)
    assert (tmp_path / 'work' / 'epoch_2.pth').exists()


def test_one_process_at_a_time_trains_in_a_folder(tmp_path):
    """As of a job that was submitted twice; mixmim takes the same lock."""
    code = (
        'import fcntl; file = open(".lock", "a"); fcntl.lockf(file, fcntl.LOCK_EX)\n'
        'print("locked", flush=True); input()'
    )
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_ITERATION]
    command = [sys.executable, '-c', code]
    (tmp_path / 'config.py').write_text('mine')
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=tmp_path) as other:
        assert other.stdout.readline() == 'locked\n'
        line = error_line(call('train.py', PRETRAIN, *options, cwd=tmp_path))
        other.communicate('\n')
    assert f'Another process uses {str(tmp_path)!r}: wait for its end, or' in line
    assert 'another --work-dir.' in line
    assert (tmp_path / 'config.py').read_text() == 'mine'
    assert {path.name for path in tmp_path.iterdir()} == {'.lock', 'config.py'}


@pytest.fixture
def hooked(tmp_path):
    """A config with a custom hook, and the folder of the module that defines it."""
    (tmp_path / 'modules').mkdir()
    (tmp_path / 'modules' / 'my_hooks.py').write_text(HOOK)
    (tmp_path / 'hooked.py').write_text(
        f"_base_ = {str(PRETRAIN)!r}\ncustom_hooks = [dict(type='CountingHook')]\n"
    )
    yield tmp_path / 'hooked.py', tmp_path / 'modules'
    HOOKS.module_dict.pop('CountingHook', None)


def test_training_with_a_custom_hook(hooked, tmp_path):
    config, folder = hooked
    options = ['--cfg-options', 'custom_imports.imports=[my_hooks]', *ONE_ITERATION]
    path = os.pathsep.join((str(folder), os.environ.get('PYTHONPATH', '')))
    result = run('train.py', config, *options, cwd=tmp_path, PYTHONPATH=path)
    assert re.findall(r'counted \d+', passed(result)) == ['counted 1']


def test_single_custom_import_needs_no_list(hooked, tmp_path, monkeypatch):
    config, folder = hooked
    monkeypatch.syspath_prepend(folder)
    options = ['--cfg-options', 'custom_imports.imports=my_hooks', *ONE_ITERATION]
    result = call('train.py', config, *options, cwd=tmp_path)
    assert re.findall(r'counted \d+', passed(result)) == ['counted 1']
    # The hook is unknown without its module.
    HOOKS.module_dict.pop('CountingHook')
    options = ['--cfg-options', *ONE_ITERATION]
    assert 'CountingHook' in error_line(
        call('train.py', config, *options, cwd=tmp_path)
    )


def test_missing_module_ends_in_one_line(tmp_path):
    options = ['--cfg-options', 'custom_imports.imports=[no_such_module]']
    line = error_line(run('train.py', PRETRAIN, *options, cwd=tmp_path))
    assert 'custom_imports: cannot import no_such_module' in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('content', ['missing', 'empty'])
def test_folder_without_images_ends_in_one_clear_error(tmp_path, content):
    folder = tmp_path / 'images'
    if content == 'empty':
        folder.mkdir()
    root = f'train_dataloader.dataset.data_root={folder}'
    options = ['--cfg-options', NO_WORKERS, root]
    line = error_line(call('train.py', FOLDER, *options, cwd=tmp_path))
    assert str(folder) in line and 'data_root=' in line


@pytest.mark.parametrize('workers', [0, 1])
def test_unreadable_image_is_named(image_folder, tmp_path, workers):
    (image_folder / 'broken.jpg').write_bytes(b'no image')
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_EPOCH]
    options += [f'train_dataloader.num_workers={workers}']
    options += [f'train_dataloader.dataset.data_root={image_folder}']
    line = error_line(call('train.py', FOLDER, *options, cwd=tmp_path))
    assert str(image_folder / 'broken.jpg') in line


@pytest.mark.parametrize(
    'option, message',
    [
        ('model.backbone.arch=giant', "'giant'"),
        ('model.mask_ratio=1.5', '1.5'),
        ('model.backbone.in_channels=3', '(64, 1, 32, 32)'),
        ('train_dataloader.dataset.pipeline.1.scale=30', '30x30'),
        ('model.backbone.type=NoSuchEncoder', 'NoSuchEncoder is not in the'),
        ('model.backbone.img_sizes=32', 'Check the entry img_sizes in the config'),
        ('train_cfgs.max_epochs=1', 'has no train_cfgs. Did you mean train_cfg?'),
        ('optim_wrapper=None', 'has no optim_wrapper'),
    ],
)
def test_bad_values_end_in_one_line(tmp_path, option, message):
    options = ['--cfg-options', NO_WORKERS, option]
    if 'in_channels' in option:
        options.append('model.data_preprocessor=None')
    line = error_line(call('train.py', PRETRAIN, *options, cwd=tmp_path))
    assert message in line


@pytest.mark.parametrize(
    'arguments, message',
    [
        pytest.param([PRETRAIN, '--amp'], 'needs a GPU.*leave out --amp', marks=on_cpu),
        ([PRETRAIN, '--auto-scale-lr'], 'needs auto_scale_lr.base_batch_size'),
        (['nix.py'], "'nix.py'"),
    ],
    ids=['amp', 'scale', 'config'],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    line = error_line(call('train.py', *arguments, cwd=tmp_path))
    assert re.search(message, line, re.IGNORECASE)


def test_a_mac_has_no_mixed_precision(monkeypatch, tmp_path):
    monkeypatch.setattr(utils, 'DEVICE', 'mps')
    line = error_line(call('train.py', PRETRAIN, '--amp', cwd=tmp_path))
    assert 'needs a GPU' in line


# apply_options


@pytest.fixture
def train(monkeypatch):
    """The script, as if there were a GPU."""
    train = load('train.py')
    monkeypatch.setattr(train, 'training_device', lambda: 'cuda')
    return train


@pytest.fixture
def apply(train):
    """Apply options to a config."""

    def apply(cfg, **options):
        cfg = dict(model=dict(), optim_wrapper=dict(type='OptimWrapper')) | cfg
        cfg = Config(dict(work_dir='nowhere') | cfg)
        off = dict(resume=None, amp=False, no_validate=False, auto_scale_lr=False)
        train.apply_options(cfg, argparse.Namespace(config='c.py', **off | options))
        return cfg

    return apply


def test_no_option_changes_nothing(apply):
    validation = dict(val_cfg=dict(), val_dataloader=dict(a=1), val_evaluator=dict())
    cfg = apply(validation | dict(auto_scale_lr=dict(base_batch_size=4)))
    assert cfg.val_dataloader == dict(a=1) and 'enable' not in cfg.auto_scale_lr
    assert cfg.optim_wrapper == dict(type='OptimWrapper')
    assert 'resume' not in cfg and 'load_from' not in cfg


def test_resume_takes_the_latest_or_a_named_checkpoint(apply, tmp_path):
    named = apply({}, resume='new.pth')
    assert named.resume is True and named.load_from == 'new.pth'
    torch.save(dict(), tmp_path / 'epoch_3.pth')
    cfg = dict(load_from='weights.pth', work_dir=str(tmp_path))
    auto = apply(cfg, resume='auto')
    assert auto.resume is True and auto.load_from == str(tmp_path / 'epoch_3.pth')


def test_resume_without_a_checkpoint_starts_as_configured(apply):
    for configured in (None, 'weights.pth'):
        cfg = apply(dict(load_from=configured), resume='auto')
        assert not cfg.get('resume') and cfg.load_from == configured
    assert apply(dict(resume=True)).resume is False
    # Both in the config mean MMEngine's: resume that file.
    both = apply(dict(resume=True, load_from='old.pth'))
    assert both.resume is True and both.load_from == 'old.pth'


def test_amp(apply):
    wrapper = apply({}, amp=True).optim_wrapper
    assert wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic')
    own = dict(optim_wrapper=dict(type='OptimWrapper', loss_scale=2.0))
    assert apply(own, amp=True).optim_wrapper.loss_scale == 2.0


@pytest.mark.parametrize(
    'kind', [None, 'AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper]
)
def test_amp_needs_a_gpu(train, apply, monkeypatch, kind):
    monkeypatch.setattr(train, 'training_device', lambda: 'cpu')
    cfg = dict(optim_wrapper=dict(type=kind)) if kind else {}
    with pytest.raises(UserError, match='needs a GPU'):
        apply(cfg, amp=kind is None)


def test_no_validate(apply):
    validation = dict(val_cfg=dict(), val_dataloader=dict(a=1), val_evaluator=dict())
    cfg = apply(dict(**validation, test_dataloader=dict(b=1)), no_validate=True)
    assert all(cfg[name] is None for name in validation) and cfg.test_dataloader


def test_auto_scale_lr(apply):
    cfg = apply(dict(auto_scale_lr=dict(base_batch_size=4)), auto_scale_lr=True)
    assert cfg.auto_scale_lr.enable is True
    for none in (None, dict(), dict(base_batch_size=0)):
        with pytest.raises(UserError, match='base_batch_size'):
            apply(dict(auto_scale_lr=none), auto_scale_lr=True)


@pytest.mark.parametrize(
    'checkpoint, others, dropped',
    [
        ('', dict(load_from='a.pth'), True),
        ('', dict(), False),
        ('', dict(resume=True), False),  # nothing to resume yet
        ('', dict(resume=True, latest='epoch_3.pth'), True),
        ('', dict(latest='epoch_3.pth'), False),
        ('b.pth', dict(load_from='a.pth'), False),
        (None, dict(load_from='a.pth'), True),
    ],
)
def test_backbone_needs_no_checkpoint_if_all_is_loaded(
    apply, tmp_path, checkpoint, others, dropped
):
    latest = others.pop('latest', None)
    if latest:
        torch.save(dict(), tmp_path / latest)
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / latest))
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    model = dict(backbone=dict(type='Any', init_cfg=init_cfg))
    cfg = apply(dict(model=model, work_dir=str(tmp_path), **others))
    assert (cfg.model.backbone.init_cfg is None) == dropped


def test_other_initialisation_is_kept(apply):
    backbone = dict(type='Any', init_cfg=dict(type='Xavier'))
    cfg = apply(dict(model=dict(backbone=backbone), load_from='a.pth'))
    assert cfg.model.backbone.init_cfg == dict(type='Xavier')


# data of mmdet and mmseg


@pytest.mark.parametrize(
    'config, root, parts',
    [
        (
            'coco/mask-rcnn_mixmim-base_fpn_8xb2-amp-1x_coco',
            'data/coco',
            ['annotations/instances_train2017.json', 'train2017'],
        ),
        (
            'ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512',
            'data/ade/ADEChallengeData2016',
            ['images/training'],
        ),
    ],
    ids=['coco', 'ade20k'],
)
def test_missing_data_are_named(config, root, parts, tmp_path):
    options = ['--cfg-options', 'optim_wrapper.type=OptimWrapper']
    config = ROOT / 'configs' / f'{config}.py'

    def line(script, *arguments):
        return error_line(call(script, config, *arguments, *options, cwd=tmp_path))

    key = 'train_dataloader.dataset'
    assert line('train.py').startswith(f'error: {root}, from {key}.data_root, does not')
    (tmp_path / root).mkdir(parents=True)
    for part in parts:
        assert line('train.py').startswith(f'error: {root}/{part}, from {key}.')
        (tmp_path / root / part).parent.mkdir(exist_ok=True)
        (tmp_path / root / part).touch()
    assert ', from test_dataloader.dataset.' in line('test.py', 'c.pth')
    # Validation data are checked, too, unless validation is off.
    (tmp_path / root / 'annotations').mkdir(exist_ok=True)
    (tmp_path / root / 'annotations' / 'training').touch()
    assert ', from val_dataloader.dataset.' in line('train.py')
    result = call('train.py', config, '--no-validate', *options, cwd=tmp_path)
    assert 'val_dataloader' not in result.stderr


def test_missing_data_of_joined_datasets_are_named(tmp_path):
    (config,) = SHAPES.glob('mask-rcnn*.py')
    write_dataset(tmp_path / 'data', dict(train=2, val=1))
    (tmp_path / 'joined.py').write_text(
        f'_base_ = {str(config)!r}\n'
        'both = [_base_.train_dataloader.dataset] * 2\n'
        'train_dataloader = dict(dataset=dict('
        "_delete_=True, type='ConcatDataset', datasets=both))\n"
    )
    line = error_line(call('train.py', 'joined.py', cwd=tmp_path))
    assert ', from train_dataloader.dataset.datasets.0.data_root, ' in line
