"""Small pretraining runs on the digits that are measured while they train."""

import json

from mmengine.runner import Runner

from .scripts import PRETRAIN
from .test_engine.conftest import read_config


def config(work_dir, **options):
    cfg = read_config(PRETRAIN)
    cfg.merge_from_dict(
        {
            'model.backbone.arch': dict(
                embed_dims=16, depths=[1, 1, 1], num_heads=[1, 2, 4]
            ),
            'model.neck.decoder_depth': 1,
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 1,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.num_batch_per_epoch': 2,
            'default_hooks.checkpoint.interval': 2,
            'default_hooks.logger.interval': 1,
            'val_cfg.max_images': 40,
        }
        | options
    )
    cfg.custom_hooks = options.get('custom_hooks', [])
    cfg.work_dir = str(work_dir)
    return cfg


def train(cfg):
    cfg.experiment_name = f'run-{id(cfg)}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def measures(work_dir):
    """What validation has logged."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record for record in records if 'reconstruction/loss' in record]


def log(work_dir):
    """The text of the log."""
    (path,) = work_dir.glob('*/*.log')
    return path.read_text()
