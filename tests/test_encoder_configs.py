"""Every encoder learns the digits, by its config and MMEngine's runner."""

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from .conftest import ROOT
from .recipes import OTHER_DIGITS

EPOCHS = 4


class Losses(Hook):
    """Keeps the loss of every iteration."""

    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())


@pytest.mark.parametrize('name', OTHER_DIGITS)
def test_loss_of_the_digits_falls(name, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / 'digits' / f'{name}.py')
    init_default_scope(cfg.default_scope)
    cfg.train_dataloader.update(batch_size=16, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.indices = 96
    cfg.train_cfg.max_epochs = EPOCHS
    cfg.param_scheduler = []
    cfg.default_hooks.checkpoint = None
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    steps = len(losses.values) // EPOCHS
    first, last = (
        sum(part) for part in (losses.values[:steps], losses.values[-steps:])
    )
    assert steps == 6 and last < 0.9 * first
