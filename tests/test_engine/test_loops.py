"""Runs that were killed end with the same bits as runs that were not."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from PIL import Image
from torch.utils.data import IterableDataset, RandomSampler

from mmmixmim.checkpoint.resumable import find_resumable
from mmmixmim.engine.wrappers import accumulated
from mmmixmim.registry import DATA_SAMPLERS, DATASETS
from mmmixmim.runtime import build_runner
from mmmixmim.synthetic import write_dataset
from mmmixmim.validation import UserError

from ..scripts import SHAPES
from ..test_dense_configs import use_shapes
from .conftest import read_config
from .runs import (
    CONFIGS,
    EPOCHS,
    LAST,
    KillHook,
    content,
    differences,
    tiny_finetuning,
    tiny_pretraining,
    train,
)


@pytest.mark.parametrize(
    'loop, workers, processes, kills',
    [
        ('epoch', 0, 1, [('before_train_iter', 2), ('after_val_iter', 2)]),
        ('epoch', 0, 1, [('after_train_epoch', 2)]),  # before schedules by epoch step
        ('epoch', 2, 1, [('writing', 3)]),
        ('epoch', 0, 2, [('after_train_iter', 5)]),
        ('epoch', 2, 2, [('before_train_iter', 7)]),
        ('iter', 0, 1, [('writing', 2), ('before_save_checkpoint', 3)]),
        ('iter', 2, 1, [('after_train_iter', 8)]),
        ('iter', 0, 2, [('before_train_iter', 4)]),
        ('iter', 2, 2, [('after_train_iter', 7)]),
    ],
)
def test_killed_and_resumed_run_ends_with_the_same_bits(
    loop, workers, processes, kills, left_alone, tmp_path
):
    for i, kill in enumerate(kills):
        cfg = CONFIGS[loop](tmp_path, workers)
        if i:
            cfg.update(resume=True, load_from=find_resumable(tmp_path))
        rank = processes - 1 if kill[0].endswith('train_iter') else 0
        hook = (KillHook, *kill)
        assert train(cfg, hook, processes=processes, killed_rank=rank) == -9
        assert not (tmp_path / LAST[loop]).exists()
    cfg = CONFIGS[loop](tmp_path, workers)
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    assert train(cfg, processes=processes) == 0
    # A run from scratch would have the same bits, too.
    assert 'resumed epoch: ' in max(tmp_path.glob('*/*.log')).read_text()
    expected, got = map(content, (left_alone(loop, processes), tmp_path / LAST[loop]))
    assert not differences(expected, got)
    losses = expected['message_hub']['log_scalars']['train/loss']
    assert len(losses['log_history']) == 9


def folder_pretraining(work_dir, images):
    """Three epochs with held-out images, pictures and a report; saved every time."""
    cfg = tiny_pretraining(work_dir, workers=2)
    cfg.model.backbone.in_channels = 3
    cfg.model.data_preprocessor.update(mean=[0, 0, 0], std=[255, 255, 255])
    load = dict(type='LoadRandomResizedCrop', scale=32, ignore_empty=True)
    data = dict(type='ImageFolder', pipeline=[load, dict(type='PackInputs')])
    cfg.train_dataloader.dataset = dict(data, data_root=str(images), held_out=4)
    cfg.val_dataloader.dataset = dict(data, part='held_out')
    cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=3, val_interval=1)
    cfg.default_hooks.checkpoint.update(by_epoch=True, interval=1)
    cfg.default_hooks.preemption.minutes = 1e-9
    cfg.default_hooks.unreadable_images.max_share = 0.5
    cfg.log_processor.by_epoch = True
    return cfg


def test_held_out_and_unreadable_images_do_not_disturb(tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (28, 40, 40, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(images / f'{i:02}.png')
    for name in ('03.png', '11.png'):
        (images / name).write_bytes(b'no image')
    alone, killed = tmp_path / 'alone', tmp_path / 'killed'
    assert train(folder_pretraining(alone, images)) == 0
    for kill in (('before_train_iter', 5), ('after_val_iter', 1)):
        cfg = folder_pretraining(killed, images)
        cfg.resume = (killed / 'last_checkpoint').exists()
        assert train(cfg, (KillHook, *kill)) == -9
    cfg = folder_pretraining(killed, images)
    cfg.resume = True
    assert train(cfg) == 0
    assert 'resumed epoch: ' in max(killed.glob('*/*.log')).read_text()
    expected, got = (content(each / 'epoch_3.pth') for each in (alone, killed))
    assert not differences(expected, got)
    assert 'val/reconstruction/loss' in expected['message_hub']['log_scalars']
    lists = [(x / 'unreadable_images.txt').read_text() for x in (alone, killed)]
    assert len(lists[0].splitlines()) == 2
    assert sorted(lists[0].splitlines()) == sorted(lists[1].splitlines())


def dense(pattern, shapes, work_dir):
    """Four iterations of a detector, by epochs, or a segmentor, by iterations."""
    (path,) = SHAPES.glob(pattern)
    cfg = read_config(path)
    use_shapes(cfg, shapes)
    cfg.train_dataloader.batch_size = 2
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint.interval = 1
    if cfg.default_scope == 'mmdet':
        cfg.train_cfg.max_epochs = 2
    else:
        cfg.train_dataloader.sampler.type = 'InfiniteSampler'
        cfg.train_cfg = dict(type='mmmixmim.ResumableIterLoop', max_iters=4)
        cfg.param_scheduler = [dict(type='PolyLR', end=4, by_epoch=False)]
        cfg.default_hooks.checkpoint.by_epoch = False
        cfg.log_processor.by_epoch = False
    cfg.update(work_dir=str(work_dir), launcher='none', experiment_name=work_dir.name)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize('pattern', ['mask-rcnn*.py', '*upernet*.py'])
def test_detection_and_segmentation_continue_too(pattern, tmp_path):
    shapes = tmp_path / 'shapes'
    write_dataset(shapes, dict(train=4, val=1))
    alone, killed = tmp_path / 'alone', tmp_path / 'killed'
    assert train(dense(pattern, shapes, alone)) == 0
    assert train(dense(pattern, shapes, killed), (KillHook, 'after_train_iter', 3)) < 0
    cfg = dense(pattern, shapes, killed)
    cfg.resume = True
    assert train(cfg) == 0
    assert 'resumed epoch: ' in max(killed.glob('*/*.log')).read_text()
    expected, got = (content(find_resumable(folder)) for folder in (alone, killed))
    assert not differences(expected, got)
    assert expected['meta']['iter'] == 4


def test_validation_that_was_done_is_not_repeated(tmp_path):
    """The checkpoint of the best epoch is written during its validation."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    # The end is always validated, and the start never.
    cfg.train_cfg.update(max_epochs=1, val_interval=2, val_begin=0)
    assert train(cfg) == 0
    done = content(tmp_path / 'epoch_1.pth')
    scores = done['message_hub']['log_scalars']['val/accuracy/top1']
    assert len(scores['log_history']) == 1

    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.train_cfg.max_epochs = 2
    cfg.update(resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    runner = build_runner(cfg)
    runner.train()
    assert len(runner.message_hub.get_scalar('val/accuracy/top1').data[0]) == 2


class Modes(Hook):
    """Note whether the model trains."""

    def before_train(self, runner):
        self.found = []

    def after_train_iter(self, runner, *args, **kwargs):
        self.found.append(runner.model.training)


def test_validations_by_iterations_are_repeated_and_left_again(tmp_path):
    """Killed within the first one."""
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=4, val_interval=2)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    cfg.log_processor = dict(by_epoch=False)
    cfg.param_scheduler = cfg.custom_hooks = []
    assert train(cfg, (KillHook, 'after_val_iter', 1)) == -9
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    runner, modes = build_runner(cfg), Modes()
    runner.register_hook(modes)
    runner.train()
    assert len(runner.message_hub.get_scalar('val/accuracy/top1').data[0]) == 2
    assert modes.found == [True, True]


def test_other_batches_continue_with_a_warning(tmp_path, caplog):
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg.max_epochs = 1
    assert train(cfg) == 0
    cfg = tiny_finetuning(tmp_path)
    cfg.train_dataloader.num_batch_per_epoch = 4
    cfg.train_cfg.max_epochs = 2
    cfg.update(resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    runner = build_runner(cfg)
    runner.train()
    assert runner.iter == 8 and runner.epoch == 2
    assert accumulated(runner)  # two by two, so the last gradients are not lost
    # The first epoch is not validated again.
    assert len(runner.message_hub.get_scalar('val/accuracy/top1').data[0]) == 2
    log = next(tmp_path.glob(f'{runner.timestamp}/*.log')).read_text()
    assert re.search('3 batches of 8 on 1 ranks .* then, 4 batches of 8 .* It', log)
    assert 'goes on at the start of the epoch: WarmupCosineLR by epochs' in log


def test_other_batches_by_iterations_continue_with_a_warning(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 2
    assert train(cfg) == 0
    cfg = tiny_pretraining(tmp_path)
    cfg.train_dataloader.batch_size = 4
    cfg.train_cfg.max_iters = 4
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    assert train(cfg) == 0
    assert content(tmp_path / 'iter_4.pth')['meta']['iter'] == 4
    log = '\n'.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert '10 batches of 4 on 1 ranks from 40 samples now. It goes on at the' in log
    assert 'the start of the epoch' not in log


def test_more_images_in_as_many_batches_are_a_warning(tmp_path):
    cfg = tiny_finetuning(tmp_path)
    cfg.train_dataloader.pop('num_batch_per_epoch')
    cfg.train_dataloader.update(drop_last=True)
    cfg.train_dataloader.dataset.indices = 24
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    assert train(cfg, (KillHook, 'before_train_iter', 3)) == -9
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    cfg.train_dataloader.dataset.indices = 31
    assert train(cfg) == 0
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert '1 ranks from 24 samples then, 3 batches of 8 on 1 ranks from 31' in log
    _, _, rest = log.partition('now. It goes on at the same iteration.')
    assert '[1][3/3]' in rest and '[1][1/3]' not in rest


class Stray(Hook):
    """Let a process resume another file, as of a folder that is not shared."""

    priority = 'LOWEST'

    def __init__(self, path):
        self.path = path

    def before_run(self, runner):
        runner._load_from = str(self.path)


def test_processes_that_resume_different_files_are_refused(tmp_path, capfd):
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 4
    assert train(cfg, processes=2) == 0
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_4.pth'))
    hooks = (Stray, tmp_path / 'iter_2.pth'), (KillHook, 'before_train_iter', 1)
    assert train(cfg, *hooks, processes=2, killed_rank=1) == 1
    assert (
        'UserError: Rank 0 starts at iteration 4 of epoch 0, and rank 1 starts at '
        'iteration 2 of epoch 0: they see different checkpoints. Set work_dir'
    ) in capfd.readouterr().err


@pytest.mark.parametrize('batches', [2, 4])
def test_other_batches_do_not_validate_half_an_epoch_as_the_one_before(
    batches, tmp_path
):
    """Killed within the second epoch, whose weights are not those of the first."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    assert train(cfg, (KillHook, 'before_train_iter', 6)) == -9
    first = (tmp_path / 'epoch_1.pth').read_bytes()
    best = {path: path.read_bytes() for path in tmp_path.glob('best_*')}
    cfg.update(resume=True, load_from=str(tmp_path / 'latest.pth'))
    assert torch.load(cfg.load_from, weights_only=True)['meta']['iter'] == 5
    cfg.train_dataloader.num_batch_per_epoch = batches
    cfg.train_cfg.max_epochs = 2
    assert train(cfg, (KillHook, 'before_train_iter', 1)) == -9
    assert (tmp_path / 'epoch_1.pth').read_bytes() == first
    assert {path: path.read_bytes() for path in tmp_path.glob('best_*')} == best
    assert train(cfg) == 0
    done = content(tmp_path / 'epoch_2.pth')
    assert (done['meta']['epoch'], done['meta']['iter']) == (2, 2 * batches)
    # A checkpoint is written before the validation of its epoch.
    scores = done['message_hub']['log_scalars']['val/accuracy/top1']
    assert len(scores['log_history']) == 1


def test_other_batches_do_not_repeat_an_epoch_that_is_done(tmp_path):
    """Killed after the last iteration of the second epoch, before its validation."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    assert train(cfg, (KillHook, 'after_train_epoch', 2)) == -9
    cfg.update(resume=True, load_from=str(tmp_path / 'latest.pth'))
    cfg.train_dataloader.num_batch_per_epoch = 4
    assert train(cfg) == 0
    done = content(tmp_path / 'epoch_3.pth')
    assert (done['meta']['epoch'], done['meta']['iter']) == (3, 12)
    scalars = done['message_hub']['log_scalars']
    assert len(scalars['val/accuracy/top1']['log_history']) == 2
    assert len(scalars['train/loss']['log_history']) == 3 + 3 + 4


def resumed(work_dir, change, **first_options):
    """Resume a run of one epoch with a changed config, and train three."""
    cfg = tiny_finetuning(work_dir)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.custom_hooks = []
    cfg.param_scheduler = [
        dict(type='WarmupCosineLR', warmup=1, end=2, convert_to_iter_based=True)
    ]
    cfg.train_cfg.max_epochs = 1
    first = copy.deepcopy(cfg)
    first.update(first_options)
    assert train(first) == 0
    cfg.train_cfg.max_epochs = EPOCHS
    change(cfg)
    cfg.update(resume=True, load_from=str(work_dir / 'epoch_1.pth'))
    runner = build_runner(cfg)
    runner.train()
    log = next(work_dir.glob(f'{runner.timestamp}/*.log')).read_text()
    return runner, log, runner.message_hub.get_scalar('train/lr').data[0][3:]


def test_another_rate_and_end_of_the_config_are_followed(tmp_path):
    def change(cfg):
        cfg.optim_wrapper.optimizer.lr = 0.005
        cfg.param_scheduler[0].end = 3

    _, log, rates = resumed(tmp_path, change)
    assert 'config, 0.005, replaces that of the checkpoint, 0.01.' in log
    expected = [0.0025 * (1 + math.cos(math.pi * i / 6)) for i in range(6)]
    assert rates.tolist() == pytest.approx(expected)


def test_another_constant_rate_is_followed(tmp_path):
    def change(cfg):
        cfg.param_scheduler = None
        cfg.optim_wrapper.optimizer.lr = 0.005

    _, log, rates = resumed(tmp_path, change, param_scheduler=None)
    assert 'config, 0.005, replaces that of the checkpoint, 0.01.' in log
    assert rates.tolist() == pytest.approx([0.005] * 6)


def test_other_options_of_the_optimizer_are_followed(tmp_path):
    def change(cfg):
        cfg.optim_wrapper.optimizer.update(weight_decay=0.2, betas=(0.8, 0.95))
        cfg.optim_wrapper.optimizer.fused = True

    runner, log, _ = resumed(tmp_path, change)
    assert 'weight_decay of the config, 0.2, replaces that of the checkpoint' in log
    assert 'betas of the config, (0.8, 0.95), replaces' in log
    groups = runner.optim_wrapper.optimizer.param_groups
    assert {group['weight_decay'] for group in groups} == {0.0, 0.2}
    assert all(group['fused'] and group['betas'] == (0.8, 0.95) for group in groups)


@pytest.mark.parametrize('batches, epochs', [(4, 2), (1, 5)])
def test_the_rate_goes_on_by_epochs_where_batches_change(batches, epochs, tmp_path):
    def change(cfg):
        cfg.train_dataloader.num_batch_per_epoch = batches
        cfg.train_cfg.max_epochs = epochs
        cfg.param_scheduler[0].end = epochs

    runner, log, rates = resumed(tmp_path, change)
    left = batches * (epochs - 1)
    expected = [0.005 * (1 + math.cos(math.pi * i / left)) for i in range(left)]
    assert runner.iter == batches * epochs and 'replaces' not in log
    assert rates.tolist() == pytest.approx(expected)


def test_an_epoch_that_is_one_too_high_is_not_skipped(tmp_path):
    """As in what DeepSpeed saves again after a new best."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.train_cfg.max_epochs = 1
    assert train(cfg) == 0
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta']['epoch'] = 2
    torch.save(checkpoint, path)
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.update(resume=True, load_from=str(path))
    runner, modes = build_runner(cfg), Modes()
    runner.register_hook(modes)
    runner.train()
    assert (runner.epoch, runner.iter) == (EPOCHS, 3 * EPOCHS)
    assert modes.found == [True] * 6  # also after the validation between them


def test_other_schedules_stay_those_of_the_checkpoint_and_say_so(tmp_path):
    def change(cfg):
        cfg.train_cfg.max_epochs = 2
        cfg.optim_wrapper.optimizer.lr = 0.02
        cfg.param_scheduler[0].end = 5

    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.train_cfg.max_epochs = 1
    assert train(cfg) == 0
    change(cfg)
    cfg.update(resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    runner = build_runner(cfg)
    runner.train()
    log = next(tmp_path.glob(f'{runner.timestamp}/*.log')).read_text()
    assert 'LinearLR goes on as in the checkpoint: end=4 (config: 5), total' in log
    assert 'StepLR goes on as in the checkpoint: end=1 (config: 2).' in log
    assert runner.optim_wrapper.param_groups[0]['lr'] == pytest.approx(0.02)


def test_another_type_of_schedule_is_a_warning(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 2
    assert train(cfg) == 0
    cfg.train_cfg.max_iters = 4
    cfg.param_scheduler[1] = dict(type='PolyLR', begin=4, end=9, by_epoch=False)
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_2.pth'))
    assert train(cfg) == 0
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'PolyLR is another schedule than that of the checkpoint, so' in log
    assert 'LinearLR is another' not in log


def continue_mmengines(work_dir, name, batches, **hook):
    """Go on after a run of MMEngine's loop by epochs, which saved two of them."""

    def config(kind, **train_cfg):
        cfg = tiny_finetuning(work_dir)
        cfg.optim_wrapper.accumulative_counts = 1
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.custom_hooks = []
        cfg.train_cfg = dict(type=kind, **train_cfg)
        return cfg

    stock = config('EpochBasedTrainLoop', max_epochs=2)
    stock.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, **hook)
    stock.default_hooks.pop('preemption')
    assert train(stock) == 0
    cfg = config('ResumableEpochLoop', max_epochs=3)
    cfg.train_dataloader.num_batch_per_epoch = batches
    cfg.update(resume=True, load_from=str(work_dir / name))
    assert train(cfg) == 0
    done = content(work_dir / 'epoch_3.pth')
    assert (done['meta']['epoch'], done['meta']['iter']) == (3, 3 * batches)
    return len(done['message_hub']['log_scalars']['train/loss']['log_history'])


@pytest.mark.parametrize('batches', [3, 4, 2])
def test_checkpoints_of_mmengines_loops_continue(batches, tmp_path):
    """They don't note their batches; MMEngine saves at the end of an epoch."""
    assert continue_mmengines(tmp_path, 'epoch_2.pth', batches) == 6 + batches


@pytest.mark.parametrize('iteration', [5, 6])
def test_mmengines_checkpoints_of_any_iteration_continue(iteration, tmp_path):
    """The end of an epoch counts as one within it, there."""
    name = f'iter_{iteration}.pth'
    assert continue_mmengines(tmp_path, name, 3, by_epoch=False) == 9


def test_run_by_iterations_continues_by_epochs(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 8
    assert train(cfg) == 0
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=3)
    cfg.log_processor.by_epoch = True
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_8.pth'))
    runner = build_runner(cfg)
    runner.train()
    # Of five batches in an epoch three were done.
    assert (runner.epoch, runner.iter) == (3, 15)
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 15


def test_samplers_of_the_runner_keep_their_order(tmp_path):
    """The seed is that of the config, on all ranks."""
    cfg = tiny_finetuning(tmp_path)
    cfg.randomness = dict(seed=7, diff_rank_seed=True)
    cfg.train_cfg.max_epochs = 1
    runner = build_runner(cfg)
    runner.train()
    loader = runner.train_dataloader
    sampler = DefaultSampler(loader.dataset, seed=7)
    expected = list(sampler)[: 3 * 8]
    assert [index for batch in loader.batch_sampler for index in batch] == expected
    assert loader.dataset.metainfo['classes'][0] == '0'


@DATA_SAMPLERS.register_module()
class Drawn(RandomSampler):
    """PyTorch's sampler, which draws a seed for each epoch."""

    def __init__(self, dataset, seed):
        super().__init__(dataset)


def test_samplers_without_a_seed_continue_too(tmp_path):
    def config(name):
        cfg = tiny_finetuning(tmp_path / name)
        cfg.train_dataloader.sampler = dict(type='Drawn')
        cfg.train_cfg.max_epochs = 2
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        return cfg

    assert train(config('alone')) == 0
    assert train(config('killed'), (KillHook, 'before_train_iter', 6)) < 0
    cfg = config('killed')
    cfg.update(resume=True, load_from=find_resumable(tmp_path / 'killed'))
    assert train(cfg) == 0
    expected, got = (
        content(tmp_path / name / 'epoch_2.pth') for name in ('alone', 'killed')
    )
    assert not differences(expected, got)


def test_processes_share_the_seed_of_the_first(left_alone, tmp_path):
    """Else they would not share the images of an epoch."""
    cfg = tiny_pretraining(tmp_path)
    cfg.randomness.diff_rank_seed = True
    assert train(cfg, processes=2) == 0
    expected, got = map(content, (left_alone('iter', 2), tmp_path / LAST['iter']))
    assert not differences(expected, got)


def test_a_last_batch_that_cannot_be_mixed_stops_before_the_training(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=1)
    cfg.train_dataloader.update(batch_size=9, drop_last=False)  # of 40 images
    cfg.param_scheduler = []
    cfg.model.update(num_images=3, mask_ratio=None, range_mask_ratio=0)
    runner = build_runner(cfg)
    message = 'last batch of an epoch has 4 images, which cannot be mixed 3 by 3: set'
    with pytest.raises(UserError, match=message):
        runner.train()
    assert runner.iter == 0


def test_data_without_indices_are_refused(tmp_path):
    class Stream(IterableDataset):
        def __len__(self):
            return 24

    DATASETS.register_module(module=Stream)
    try:
        cfg = tiny_finetuning(tmp_path)
        cfg.train_dataloader.dataset = dict(type='Stream')
        with pytest.raises(UserError, match='map-style dataset.*Stream.*EpochBasedTr'):
            build_runner(cfg).train()
    finally:
        DATASETS.module_dict.pop('Stream')
