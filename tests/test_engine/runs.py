"""Small training runs in processes of their own, which may be killed."""

import gc
import multiprocessing
import os
import signal

import numpy as np
import sklearn.datasets  # noqa: F401 (so that the processes below need not import it)
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook

from mmmixmim.runtime import build_runner

from ..scripts import CLASSIFY, PRETRAIN, free_port
from .conftest import read_config

ARCH = dict(embed_dims=8, depths=[1, 1, 1], num_heads=[1, 2, 4])
PER_EPOCH, EPOCHS = 3, 3


def tiny_pretraining(work_dir, workers=0):
    """Nine iterations of MixMIM on the digits, saved after every second one."""
    cfg = _tiny(PRETRAIN, work_dir, workers)
    cfg.model.neck.update(decoder_embed_dims=16, decoder_depth=1, decoder_num_heads=2)
    cfg.model.range_mask_ratio = 0.25
    cfg.train_dataloader.pop('num_batch_per_epoch')
    cfg.train_dataloader.dataset.indices = 40  # five batches in an epoch
    cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=9)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
        dict(type='CosineAnnealingLR', begin=4, end=9, by_epoch=False),
    ]
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2, max_keep_ckpts=2)
    cfg.log_processor = dict(by_epoch=False)
    return cfg


def tiny_finetuning(work_dir, workers=0):
    """Three epochs with all that keeps state.

    Mixup, stochastic depth, EMA, schedules by iteration and by epoch, validation, the
    best checkpoint, and an accumulation that no epoch ends with. Saved after every
    update.
    """
    cfg = _tiny(CLASSIFY, work_dir, workers)
    cfg.model.head.in_channels = 32
    cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=0.8)])
    cfg.train_cfg = dict(type='ResumableEpochLoop', max_epochs=EPOCHS, val_interval=1)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False),
        dict(type='StepLR', step_size=1, gamma=0.5),
    ]
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.optim_wrapper.optimizer.lr = 0.01
    cfg.val_dataloader.update(batch_size=20, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.dataset.indices = 60
    cfg.default_hooks.checkpoint.update(interval=1, save_best='auto', max_keep_ckpts=1)
    cfg.default_hooks.preemption.minutes = 1e-9
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.1)]
    return cfg


CONFIGS = dict(epoch=tiny_finetuning, iter=tiny_pretraining)
LAST = dict(epoch='epoch_3.pth', iter='iter_9.pth')


def _tiny(path, work_dir, workers):
    cfg = read_config(path)
    cfg.model.backbone.update(arch=dict(ARCH), drop_path_rate=0.2)
    cfg.train_dataloader.update(
        batch_size=8,
        num_workers=workers,
        persistent_workers=workers > 0,
        num_batch_per_epoch=PER_EPOCH,
    )
    cfg.default_hooks.logger.interval = 1
    cfg.update(work_dir=str(work_dir), launcher='none', experiment_name=work_dir.name)
    return cfg


class KillHook(Hook):
    """Kill this process at a stage.

    Args:
        stage: Name of a hook's method, or 'writing': in the middle of a file.
        number: Of the call, from 1.
    """

    def __init__(self, stage, number, priority='VERY_HIGH'):
        self.left = number
        self.priority = priority
        if stage == 'writing':
            self.put, LocalBackend.put = LocalBackend.put, self._put_half
        else:
            setattr(self, stage, self._count)

    def _count(self, *args, **kwargs):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def _put_half(self, content, path):
        if self.left == 1:
            self.put(LocalBackend(), content[: len(content) // 2], path)
        self._count()
        self.put(LocalBackend(), content, path)


def train(cfg, *hooks, processes=1, killed_rank=0):
    """Train in new processes.

    Args:
        cfg: The config.
        *hooks: More hooks, for the process of rank ``killed_rank``.
        processes: Their number.
        killed_rank: The rank that gets the hooks. When its process dies, the others are
            killed, as a launcher does.

    Returns:
        Exit status of the process of that rank.
    """
    port = free_port()
    context = multiprocessing.get_context('fork')
    children = [
        context.Process(
            target=_train,
            args=(cfg, rank, processes, port, hooks if rank == killed_rank else ()),
        )
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    chosen = children.pop(killed_rank)
    chosen.join()
    for child in children:
        if chosen.exitcode:
            child.kill()
        child.join()
    return chosen.exitcode


def _train(cfg, rank, processes, port, hooks):
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    gc.freeze()  # MMEngine collects often, which would go through all that pytest has
    if processes > 1:
        cfg.launcher = 'pytorch'
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=port,
        )
    runner = build_runner(cfg)
    for make, *arguments in hooks:
        hook = make(*arguments)
        runner.register_hook(hook, hook.priority)
    runner.train()


def differences(a, b, name=''):
    """Names of the entries in which two checkpoints differ in a bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = {*a, *b}
        return [
            found
            for key in keys
            for found in differences(a.get(key), b.get(key), f'{name}.{key}')
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [name]
        return differences(dict(enumerate(a)), dict(enumerate(b)), name)
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return [] if a.shape == b.shape and (a == b).all() else [name]
    return [] if type(a) is type(b) and a == b else [name]


def content(path):
    """What must be equal in a checkpoint: all but times and paths."""
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint['meta']['time'], checkpoint['meta']['experiment_name']
    del checkpoint['meta']['cfg']
    hub = checkpoint['message_hub']
    for entries in hub.values():
        for name in list(entries):
            if name.endswith(('time', 'eta', 'cfg', 'experiment_name', '_ckpt')):
                del entries[name]
    return checkpoint
