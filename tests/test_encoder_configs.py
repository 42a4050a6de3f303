"""Every encoder learns the digits, and fine-tuning starts from its weights."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmixmim.registry import MODELS

from .conftest import ROOT
from .recipes import OTHER_DIGITS, OTHER_FINETUNING
from .test_configs import SMALL

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


@pytest.mark.parametrize('name', OTHER_FINETUNING)
def test_fine_tuning_starts_from_the_pretrained_encoder(name, tmp_path):
    """By the option that the recipe documents, with small encoders."""
    encoder = name.split('_')[0]
    folder = ROOT / 'configs' / 'mixmim'
    (path,) = folder.glob(f'mixmim_{encoder}_*.py')
    source = Config.fromfile(path)
    init_default_scope(source.default_scope)
    source.model.backbone.update(SMALL[source.model.backbone.type])
    source.model.neck.update(decoder_depth=1, decoder_embed_dims=64)
    source = MODELS.build(source.model)
    for parameter in source.backbone.parameters():
        torch.nn.init.normal_(parameter)
    checkpoint = str(tmp_path / 'pretrained.pth')
    torch.save(dict(state_dict=source.state_dict()), checkpoint)

    cfg = Config.fromfile(folder / 'benchmarks' / f'{name}.py')
    cfg.model.backbone.update(SMALL[cfg.model.backbone.type])
    cfg.model.head.in_channels = 128
    cfg.merge_from_dict({'model.backbone.init_cfg.checkpoint': checkpoint})
    model = MODELS.build(cfg.model)
    model.init_weights()
    expected = source.backbone.state_dict()
    found = model.backbone.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key
