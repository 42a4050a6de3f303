"""Building the runner of a config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.device import get_device, utils
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmixmim.engine import DeepSpeedStrategy, PlainCheckpointHook, UnreadableImagesHook
from mmmixmim.runtime import build_runner
from mmmixmim.validation import RefusedFileError, UserError

from ..scripts import free_port
from ..test_engine.runs import tiny_pretraining, train


@pytest.fixture
def cfg(tmp_path):
    """A minimal config."""
    return Config(
        dict(
            model=dict(type='ToyModel'),
            work_dir=str(tmp_path),
            launcher='none',
            env_cfg=dict(),
            default_scope='mmengine',
            experiment_name=tmp_path.name,
        )
    )


@pytest.fixture(autouse=True)
def toy_model():
    from mmengine.model import BaseModel
    from mmengine.registry import MODELS

    class ToyModel(BaseModel):
        def __init__(self, init_cfg=None):
            super().__init__(init_cfg=init_cfg)
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return inputs

    MODELS.register_module(module=ToyModel, force=True)
    yield
    MODELS.module_dict.pop('ToyModel')


def test_plain_runner(cfg, tmp_path):
    runner = build_runner(cfg)
    assert type(runner) is Runner and runner.work_dir == str(tmp_path)
    assert not torch.distributed.is_initialized()


def test_macs_train_on_the_cpu(cfg, monkeypatch, caplog):
    """PyTorch without Apple's GPU fails to move a model there."""
    monkeypatch.setattr(utils, 'DEVICE', 'mps')
    log = MMLogger.get_current_instance()
    log.addHandler(caplog.handler)
    try:
        assert build_runner(cfg).model.layer.weight.device.type == 'cpu'
    finally:
        log.removeHandler(caplog.handler)
    assert "Apple's GPU" in caplog.text and get_device() == 'cpu'


def test_training_on_a_mac(tmp_path, monkeypatch):
    monkeypatch.setattr(utils, 'DEVICE', 'mps')  # of the process that trains, too
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 1
    assert train(cfg) == 0


def test_runner_type_of_the_config(cfg):
    class OtherRunner(Runner):
        pass

    RUNNERS.register_module(module=OtherRunner)
    try:
        cfg.runner_type = 'OtherRunner'
        assert type(build_runner(cfg)) is OtherRunner
    finally:
        RUNNERS.module_dict.pop('OtherRunner')


@pytest.fixture
def one_process(monkeypatch):
    """The environment in which torchrun starts a single process."""
    values = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1')
    for name, value in (values | dict(MASTER_PORT=free_port())).items():
        monkeypatch.setenv(name, value)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without')
@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
def test_processes_on_a_cpu_use_gloo(cfg, one_process, runner_type):
    """See ``test_tools/test_distributed.py`` for two processes."""
    cfg.runner_type = runner_type
    cfg.launcher = 'pytorch'
    cfg.find_unused_parameters = True
    runner = build_runner(cfg)
    assert torch.distributed.get_backend() == 'gloo'
    if runner_type == 'FlexibleRunner':
        runner.strategy.prepare(runner.model)
        model = runner.strategy.model
    else:
        model = runner.model
    assert type(model).__name__ == 'MMDistributedDataParallel'
    assert model.device_ids is None and model.find_unused_parameters


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without')
def test_a_wrapper_of_the_config_is_kept(cfg, one_process):
    cfg.launcher = 'pytorch'
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=True
    )
    assert build_runner(cfg).model.broadcast_buffers


# The learning rate of an update, and the batch


@pytest.fixture
def training(cfg):
    """Training on five samples; an epoch is one iteration of all or of some."""
    from mmengine.registry import DATASETS

    DATASETS.register_module('Five', module=lambda: list(range(5)), force=True)
    cfg.train_dataloader = dict(
        batch_size=2,
        drop_last=True,
        dataset=dict(type='Five'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    cfg.optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0))
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3)
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=16)
    yield cfg
    DATASETS.module_dict.pop('Five')


def rate(runner):
    """The learning rate that a run starts with; it does not iterate."""
    runner.train_loop.run = lambda: runner.model
    runner.train()
    return runner.optim_wrapper.param_groups[0]['lr']


@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('batches', [1, 4])
def test_rate_follows_the_images_of_an_update(training, runner_type, batches):
    training.runner_type = runner_type
    training.optim_wrapper.accumulative_counts = batches
    # Several groups, of which MMEngine logs the rate before any factor.
    training.optim_wrapper.paramwise_cfg = dict(bias_lr_mult=1.0)
    runner = build_runner(training)
    assert rate(runner) == 2 * batches / 16
    assert runner.optim_wrapper.get_lr()['base_lr'] == [2 * batches / 16]
    # Training again with the saved config gives the same rate.
    assert runner.cfg.auto_scale_lr.base_batch_size == 16


def test_groups_may_have_no_rate(training):
    training.optim_wrapper.paramwise_cfg = dict(
        custom_keys={'layer.weight': dict(lr_mult=0.0)}
    )
    runner = build_runner(training)
    assert rate(runner) == 0
    assert runner.optim_wrapper.get_lr()['base_lr'] == [2 / 16]
    assert len(runner.optim_wrapper.optimizer.param_groups) == 2


@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
@pytest.mark.parametrize('resume', [False, True])
def test_a_resumed_run_does_not_load_what_it_began_with(
    training, tmp_path, runner_type, resume
):
    """That file may be gone. The config keeps its name."""
    training.runner_type = runner_type
    first = build_runner(training)
    rate(first)
    first.save_checkpoint(str(tmp_path), 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'gone.pth'))
    training.model.init_cfg = init_cfg
    training.update(resume=resume, experiment_name=f'again {resume}')
    runner = build_runner(training)
    if resume:
        rate(runner)
    else:
        with pytest.raises(FileNotFoundError, match='gone.pth'):
            rate(runner)
    assert Config.fromfile(max(tmp_path.glob('*.py'))).model.init_cfg == init_cfg


def test_rate_without_scaling_is_that_of_the_config(training):
    training.auto_scale_lr.enable = False
    training.optim_wrapper.accumulative_counts = 4
    assert rate(build_runner(training)) == 1


@pytest.mark.parametrize('runner_type', ['Runner', 'FlexibleRunner'])
def test_a_small_dataset_shrinks_the_batch(training, runner_type, caplog):
    training.runner_type = runner_type
    training.train_dataloader.batch_size = 8
    runner = build_runner(training)
    runner.logger.addHandler(caplog.handler)
    assert rate(runner) == 5 / 16
    (batch,) = runner.train_dataloader
    assert batch == [0, 1, 2, 3, 4]
    assert 'has 5 samples' in caplog.text and 'shrinks to 5' in caplog.text


@pytest.mark.parametrize(
    'options, batches',
    [(dict(batch_size=2), 2), (dict(batch_size=8, drop_last=False), 1)],
)
def test_other_batches_stay(training, options, batches):
    training.train_dataloader.update(options)
    loader = build_runner(training).train_dataloader
    assert (len(loader), loader.batch_size) == (batches, options['batch_size'])


def test_hooks_for_plain_checkpoints_and_bad_images_are_always_there(cfg):
    cfg.default_hooks = dict(unreadable_images=dict(max_share=0.5))
    hooks = build_runner(cfg).hooks
    assert sum(isinstance(hook, PlainCheckpointHook) for hook in hooks) == 1
    (bad_images,) = (each for each in hooks if isinstance(each, UnreadableImagesHook))
    assert bad_images.max_share == 0.5


def test_a_moving_average_that_cannot_resume_is_refused(cfg):
    cfg.runner_type = 'FlexibleRunner'
    cfg.custom_hooks = [dict(type='EMAHook')]
    with pytest.raises(UserError, match='EMAHook does not work with FlexibleRunner'):
        build_runner(cfg)


def test_work_folder_must_be_possible(cfg, tmp_path):
    (tmp_path / 'file').touch()
    cfg.work_dir = str(tmp_path / 'file' / 'work')
    with pytest.raises(UserError, match='file/work.*cannot be made.*--work-dir'):
        build_runner(cfg)


@pytest.mark.parametrize(
    'by, strategy',
    [
        ('load_from', 'mmengine.DeepSpeedStrategy'),
        ('load_from', DeepSpeedStrategy),
        ('resume', 'mmengine.DeepSpeedStrategy'),
    ],
)
def test_engines_that_unpickle_need_trust(cfg, tmp_path, monkeypatch, by, strategy):
    """DeepSpeed is not asked to load anything, so it need not be installed."""
    path = str(tmp_path / 'epoch_1.pth')
    cfg.runner_type = 'FlexibleRunner'
    cfg.strategy = dict(type=strategy)
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
