"""Building the runner of a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmixmim.engine import PlainCheckpointHook, UnreadableImagesHook
from mmmixmim.runtime import build_runner
from mmmixmim.validation import RefusedFileError, UserError


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


def test_hooks_for_plain_checkpoints_and_bad_images_are_always_there(cfg):
    cfg.default_hooks = dict(unreadable_images=dict(max_share=0.5))
    hooks = build_runner(cfg).hooks
    assert sum(isinstance(hook, PlainCheckpointHook) for hook in hooks) == 1
    (bad_images,) = (each for each in hooks if isinstance(each, UnreadableImagesHook))
    assert bad_images.max_share == 0.5


def test_work_folder_must_be_possible(cfg, tmp_path):
    (tmp_path / 'file').touch()
    cfg.work_dir = str(tmp_path / 'file' / 'work')
    with pytest.raises(UserError, match='file/work.*cannot be made.*--work-dir'):
        build_runner(cfg)


@pytest.mark.parametrize('by', ['load_from', 'resume'])
def test_engines_that_unpickle_need_trust(cfg, tmp_path, monkeypatch, by):
    """DeepSpeed is not asked to load anything, so it need not be installed."""
    path = str(tmp_path / 'epoch_1.pth')
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(type='mmengine.DeepSpeedStrategy')
    if by == 'resume':
        (tmp_path / 'last_checkpoint').write_text(path)
        cfg.resume = True
    else:
        cfg.load_from = path
    with pytest.raises(RefusedFileError, match=f'MMMIXMIM_TRUST_FILES={path}'):
        build_runner(cfg)
    monkeypatch.setenv('MMMIXMIM_TRUST_FILES', str(tmp_path))
    with pytest.raises(Exception) as error:  # the toy config cannot train
        build_runner(cfg)
    assert not isinstance(error.value, RefusedFileError)
