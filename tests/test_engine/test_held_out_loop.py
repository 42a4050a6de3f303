"""Measures on held-out images in real runs on the digits."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.datasets import MixtureGroups
from mmmixmim.validation import UserError

from ..conftest import ROOT
from ..scripts import PRETRAIN, TOOLS, free_port
from ..watched_run import config, log, measures, train


def test_a_run_logs_loss_and_health_of_every_stage(tmp_path):
    train(config(tmp_path))
    records = measures(tmp_path)
    assert [record['step'] for record in records] == [1, 2]
    for record in records:
        assert 0 < record['reconstruction/loss'] < 3
        # The edges of many digits are black.
        assert 0.8 < record['reconstruction/mean_loss'] < 0.98
        for stage in (1, 2, 3):
            assert 1 <= record[f'features/rank_stage{stage}'] < 40
            assert 0 < record[f'features/std_stage{stage}'] < 1.5
            assert 0 <= record[f'features/dead_stage{stage}'] <= 1


def test_what_is_logged_is_measured_and_no_mean_of_several_validations(tmp_path):
    # One validation per epoch; the second also by itself, from the checkpoint.
    runner = train(config(tmp_path / 'all'))
    logged = [each['reconstruction/loss'] for each in measures(tmp_path / 'all')]
    assert logged[0] != logged[1]
    assert runner.val()['reconstruction/loss'] == pytest.approx(logged[1], rel=1e-6)


@pytest.mark.parametrize('scope', ['', 'mmengine.'])
def test_low_precision_is_that_of_the_training(scope, tmp_path, monkeypatch):
    """Float16, the default of a GPU, overflows where bfloat16 does not."""

    class Seen(Exception):
        pass

    def val_step(data):
        raise Seen(torch.get_autocast_dtype('cuda'))

    wrapper = {'type': f'{scope}AmpOptimWrapper', 'dtype': 'bfloat16'}
    options = {f'optim_wrapper.{name}': value for name, value in wrapper.items()}
    runner = Runner.from_cfg(config(tmp_path, **options))
    runner._val_loop = runner.build_val_loop(runner._val_loop)
    monkeypatch.setattr('mmengine.runner.amp.get_device', lambda: 'cuda')
    monkeypatch.setattr('torch.cuda.is_bf16_supported', lambda: True)
    monkeypatch.setattr(runner.model, 'val_step', val_step)
    with pytest.warns(UserWarning, match='CUDA is not available'):
        with pytest.raises(Seen, match='bfloat16'):
            runner.val_loop.run()


def test_training_is_the_same_bit_by_bit_with_and_without_measures(tmp_path):
    hooks = [
        dict(type='OnlineProbeHook', max_images=60),
        dict(type='ReconstructionHook'),
        dict(type='DiagnosisHook'),
    ]
    weights = []
    for name in ('with', 'without'):
        # Python's, NumPy's and PyTorch's random numbers all matter here.
        cfg = config(tmp_path / name, **{'model.range_mask_ratio': 0.2})
        cfg.randomness = dict(seed=3, diff_rank_seed=True)
        cfg.model.filling = 'noise'
        if name == 'with':
            cfg.custom_hooks = hooks
        else:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        weights.append(train(cfg).model.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key


def test_figures_do_not_depend_on_the_batch(tmp_path):
    found = []
    for size in (5, 7):
        cfg = config(tmp_path / str(size), **{'val_dataloader.batch_size': size})
        cfg.train_cfg.max_epochs = 1
        cfg.model.num_images = 3  # the batch of 64 becomes 63
        cfg.train_dataloader.batch_size = 63
        train(cfg)
        found.append(measures(tmp_path / str(size))[0])
    for name in found[0].keys() - {'time', 'data_time', 'step'}:
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4), name


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    """13 groups, so that MMEngine pads the last batch of one process."""
    options = ['model.backbone.arch.embed_dims=16', 'model.neck.decoder_depth=1']
    options += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    options += [
        'train_dataloader.num_batch_per_epoch=1',
        'optim_wrapper.optimizer.lr=0',
    ]
    options += ['train_dataloader.num_workers=0', 'val_cfg.max_images=26']
    options += ['val_dataloader.batch_size=4', 'custom_hooks.0.max_images=60']
    starters = {
        'one': [sys.executable],
        'two': [
            *(sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2'),
            f'--master-port={free_port()}',
        ],
    }
    for name, starter in starters.items():
        launcher = 'pytorch' if name == 'two' else 'none'
        command = [*starter, TOOLS / 'train.py', PRETRAIN, '--launcher', launcher]
        command += ['--work-dir', tmp_path / name, '--cfg-options', *options]
        result = subprocess.run(
            [str(part) for part in command],
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
    one, two = (measures(tmp_path / name)[0] for name in starters)
    assert one['probe/top1'] > 0
    for key in one.keys() - {'time', 'data_time', 'step'}:
        assert one[key] == pytest.approx(two[key], rel=1e-4), key


def folder_config(folder, work_dir):
    size = dict(type='Resize', scale=(32, 32))
    load = dict(type='LoadImageFromFile', color_type='grayscale')
    pipeline = [load, size, dict(type='PackInputs')]
    cfg = config(work_dir)
    cfg.train_dataloader.dataset = dict(
        type='ImageFolder', data_root=str(folder), held_out=0.05, pipeline=pipeline
    )
    cfg.val_dataloader.dataset = dict(
        type='ImageFolder', part='held_out', pipeline=pipeline
    )
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.batch_size = 2
    del cfg.train_dataloader['num_batch_per_epoch']
    return cfg


def test_a_hook_that_draws_classes_is_refused_before_the_training(tmp_path):
    cfg = config(tmp_path)
    cfg.default_hooks.visualization.enable = True
    with pytest.raises(UserError, match='VisualizationHook.*ReconstructionHook'):
        train(cfg)
    assert 'Epoch(train)' not in log(tmp_path)


def test_too_small_a_folder_trains_without_measures_and_says_so(image_folder, tmp_path):
    work_dir = tmp_path / 'run'
    runner = train(folder_config(image_folder, work_dir))
    assert runner.iter == 3 and not measures(work_dir)
    text = log(work_dir)
    assert text.count('There are no held-out images') == 1
    assert text.count('fewer than 16: none are held out') == 1


def test_one_held_out_image_is_too_few_to_mix(image_folder, tmp_path):
    cfg = folder_config(image_folder, tmp_path / 'run')
    cfg.train_dataloader.dataset.held_out = 1
    train(cfg)
    text = log(tmp_path / 'run')
    assert text.count('There are too few held-out images to mix') == 1
    assert not measures(tmp_path / 'run')


def test_held_out_images_are_those_that_training_leaves_out(image_folder, tmp_path):
    cfg = folder_config(image_folder, tmp_path / 'run')
    cfg.train_dataloader.dataset.held_out = 2
    runner = train(cfg)
    held_out = runner.val_dataloader.dataset.dataset
    trained = runner.train_dataloader.dataset
    paths = [
        {each.get_data_info(i)['img_path'] for i in range(len(each))}
        for each in (held_out, trained)
    ]
    assert len(paths[0]) == 2 and not paths[0] & paths[1]
    assert len(measures(tmp_path / 'run')) == 1


def test_a_held_out_image_that_cannot_be_read_is_replaced(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(6):
        Image.new('RGB', (64, 64), (40 * i, 0, 0)).save(folder / f'{i}.png')
    (folder / '3.png').write_bytes(b'no image')
    init_default_scope('mmmixmim')
    pipeline = Config.fromfile(
        ROOT / 'configs' / '_base_' / 'datasets' / 'pretrain.py'
    ).held_out_pipeline
    dataset = MixtureGroups(
        dict(type='ImageFolder', data_root=str(folder), pipeline=pipeline)
    )
    reds = [[int(x[2].float().mean()) for x in item['inputs']] for item in dataset]
    assert reds == [[0, 160], [40, 160], [80, 200]]
