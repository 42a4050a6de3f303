"""Building the runner of a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmixmim.runtime import build_runner


@pytest.fixture
def cfg(tmp_path):
    """A minimal config."""
    return Config(
        dict(
            model=dict(type='ToyModel'),
            work_dir=str(tmp_path),
            launcher='none',
            default_scope='mmengine',
            experiment_name=tmp_path.name,
        )
    )


@pytest.fixture(autouse=True)
def toy_model():
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS

    class ToyModel(BaseModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            return inputs

    MODELS.register_module(module=ToyModel, force=True)
    yield
    MODELS.module_dict.pop('ToyModel')


def test_plain_runner(cfg, tmp_path):
    runner = build_runner(cfg)
    assert type(runner) is Runner and runner.work_dir == str(tmp_path)
    assert not torch.distributed.is_initialized()


def test_runner_type_of_the_config(cfg):
    class OtherRunner(Runner):
        pass

    RUNNERS.register_module(module=OtherRunner)
    try:
        cfg.runner_type = 'OtherRunner'
        assert type(build_runner(cfg)) is OtherRunner
    finally:
        RUNNERS.module_dict.pop('OtherRunner')


@pytest.mark.parametrize(
    'launcher, device, backends',
    [
        ('pytorch', 'cpu', ['gloo']),
        ('pytorch', 'cuda', []),
        ('none', 'cpu', []),
        ('slurm', 'cpu', []),
    ],
)
def test_processes_on_a_cpu_use_gloo(cfg, monkeypatch, launcher, device, backends):
    """See ``test_tools/test_shell_scripts.py`` for two real processes."""
    asked = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', asked.append)
    monkeypatch.setattr('mmmixmim.runtime.runner.get_device', lambda: device)
    monkeypatch.setattr(Runner, 'from_cfg', lambda cfg: cfg)
    cfg.launcher = launcher
    built = build_runner(cfg)
    assert asked == backends
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    assert built.get('model_wrapper_cfg') == (wrapper if backends else None)

    own = cfg.model_wrapper_cfg = dict(type='Own')
    assert build_runner(cfg).model_wrapper_cfg == own
