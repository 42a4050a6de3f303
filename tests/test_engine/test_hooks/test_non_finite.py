import json

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS

from mmmixmim.checkpoint.resumable import find_resumable
from mmmixmim.engine import NonFiniteHook
from mmmixmim.engine.hooks.non_finite import _largest
from mmmixmim.models import MixMIM
from mmmixmim.registry import MODELS
from mmmixmim.runtime import build_runner
from mmmixmim.validation import UserError
from tests.no_waits import NoWaits

from ..runs import tiny_finetuning, tiny_pretraining, train


class Poison(Hook):
    """Make a batch NaN before the training steps of some iterations."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def before_train_iter(self, runner, batch_idx, data_batch):
        self.weights = [each.clone() for each in runner.model.parameters()]
        if runner.iter + 1 in self.iterations:
            data_batch['inputs'] = data_batch['inputs'] * float('nan')
            self.before = self.weights


@pytest.fixture
def make_runner(tmp_path):
    """Builder of a runner whose batches are NaN at some iterations."""

    def make(*iterations, cfg=None, **options):
        cfg = cfg or tiny_pretraining(tmp_path)
        cfg.default_hooks.non_finite.update(options)
        runner = build_runner(cfg)
        runner.poison = Poison(*iterations)
        runner.register_hook(runner.poison)
        return runner

    return make


def test_the_run_stops_with_all_that_helps(make_runner, tmp_path):
    runner = make_runner(4)
    with pytest.raises(UserError) as raised:
        runner.train()
    message = str(raised.value)
    for part in (
        'The loss is nan and the gradient of ',
        'at iteration 4 (learning rate 0.00',
        f'{tmp_path}/non_finite_4.json',
        'the 8 files of the batch',
        'default_hooks.non_finite.max_skips=N',
    ):
        assert part in message
    assert '\n' not in message and message.endswith('Then continue with --resume.')
    report = json.loads((tmp_path / 'non_finite_4.json').read_text())
    assert report['iteration'] == 4 and report['learning_rate'] > 0
    assert len(report['last_losses']) == 3 and len(report['gradient_norms']) == 5
    assert len(report['files']) == 8 and report['files'][0].startswith('sample ')

    # The weights are clean, and the last checkpoint is the one before.
    assert find_resumable(tmp_path) == str(tmp_path / 'iter_2.pth')
    assert len(list(tmp_path.glob('*.pth'))) == 1
    for now, before in zip(
        runner.model.parameters(), runner.poison.before, strict=True
    ):
        assert torch.equal(now, before)


def test_norms_that_are_not_finite_are_listed_first_then_the_largest(make_runner):
    runner = make_runner()
    names, parameters = zip(*runner.model.named_parameters(), strict=True)
    norms = [float(number) for number in range(len(names))]
    norms[2] = float('nan')
    found = list(_largest(runner, parameters, norms))
    assert found == [names[2], *names[:-5:-1]]


def test_files_of_the_batch_are_named(make_runner, image_folder, tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.model.backbone.in_channels = 3
    cfg.model.data_preprocessor.update(mean=[0, 0, 0], std=[255, 255, 255])
    cfg.train_dataloader.batch_size = 4
    cfg.train_dataloader.dataset = dict(
        type='ImageFolder',
        data_root=str(image_folder),
        pipeline=[
            dict(type='LoadRandomResizedCrop', scale=32),
            dict(type='PackInputs'),
        ],
    )
    with pytest.raises(UserError, match='the 4 files of the batch'):
        make_runner(1, cfg=cfg).train()
    files = json.loads((tmp_path / 'non_finite_1.json').read_text())['files']
    assert len(files) == 4
    assert all(file.startswith(str(image_folder)) for file in files)


@pytest.mark.parametrize('fused', [False, True])
def test_steps_are_skipped_up_to_a_number(make_runner, tmp_path, fused):
    cfg = tiny_pretraining(tmp_path)
    cfg.optim_wrapper.optimizer.fused = fused
    runner = make_runner(3, 7, cfg=cfg, max_skips=2)
    runner.train()
    report = json.loads((tmp_path / 'non_finite_7.json').read_text())
    assert len(report['gradient_norms']) == 5
    assert not hasattr(runner.optim_wrapper.optimizer, 'found_inf')
    assert runner.iter == 9 and runner.message_hub.get_info('skipped_steps') == 2
    state = torch.load(tmp_path / 'iter_9.pth', weights_only=True)
    assert all(each.isfinite().all() for each in state['state_dict'].values())
    steps = {each['step'].item() for each in state['optimizer']['state'].values()}
    assert steps == {7}


def test_one_bad_step_too_many_stops_also_after_resuming(make_runner, tmp_path):
    with pytest.raises(UserError, match='at iteration 7 '):
        make_runner(3, 7, max_skips=1).train()
    cfg = tiny_pretraining(tmp_path)
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    with pytest.raises(UserError, match='at iteration 9 '):
        make_runner(9, cfg=cfg, max_skips=1).train()


def test_all_processes_skip_a_step_that_is_bad_in_one(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.default_hooks.non_finite.max_skips = 1
    assert train(cfg, (Poison, 3), processes=2, killed_rank=1) == 0
    state = torch.load(tmp_path / 'iter_9.pth', weights_only=True)
    assert state['message_hub']['runtime_info']['skipped_steps'] == 1
    steps = {each['step'].item() for each in state['optimizer']['state'].values()}
    assert steps == {8}


def test_iterations_of_an_accumulation_count_as_one_step(make_runner, tmp_path):
    cfg = tiny_finetuning(tmp_path)
    cfg.model.train_cfg = None  # no mixup
    runner = make_runner(3, 4, cfg=cfg, max_skips=1)
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 1


@pytest.mark.parametrize('clip', [None, dict(max_norm=1e9), dict(max_norm=0.5)])
def test_norm_of_the_gradients_is_logged_and_changes_nothing(clip, tmp_path):
    """MMEngine logs the norm before clipping."""

    def run(name, clip_grad):
        cfg = tiny_pretraining(tmp_path / name)
        cfg.train_cfg.max_iters = 3
        if name == 'plain':
            del cfg.default_hooks['non_finite']
        cfg.optim_wrapper.clip_grad = clip_grad
        runner = build_runner(cfg)
        runner.train()
        lines = next((tmp_path / name).glob('*/vis_data/scalars.json')).read_text()
        records = [json.loads(line) for line in lines.splitlines()]
        assert all('grad_norm' in each for each in records if 'loss' in each)
        norms = runner.message_hub.get_scalar('train/grad_norm').data[0].tolist()
        return norms, list(runner.model.parameters())

    norms, weights = run('hook', clip)
    expected, unhooked = run('plain', clip or dict(max_norm=1e9))
    assert len(norms) == 3 and norms == pytest.approx(expected, rel=1e-6)
    assert all(map(torch.equal, weights, unhooked))


def test_gradients_clipped_by_value_are_watched(make_runner):
    """MMEngine logs no norm of them."""
    runner = make_runner(3)
    runner.optim_wrapper['clip_grad'] = dict(type='value', clip_value=0.1)
    with pytest.raises(UserError, match='gradient of .* has the norm'):
        runner.train()
    norms = runner.message_hub.get_scalar('train/grad_norm').data[0]
    assert 0 < norms[0] < 1e3


def watching(runner):
    """A hook that has begun to watch a runner's optimizer."""
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    hook = NonFiniteHook()
    hook.before_train(runner)
    return hook


@pytest.mark.parametrize('fused', [True, False])
def test_a_fused_optimizer_does_not_wait_for_the_device(make_runner, fused):
    """The meta device stands for a GPU."""
    hook = watching(make_runner())
    weight = torch.nn.Parameter(torch.empty(4, device='meta'))
    weight.grad = torch.empty_like(weight)
    optimizer = torch.optim.AdamW([weight], fused=fused)
    with NoWaits():
        if fused:
            hook._before_step(optimizer, (), {})
            assert optimizer.found_inf.device.type == 'meta'
            hook._after_step(optimizer, (), {})
        else:
            with pytest.raises((AssertionError, RuntimeError)):
                hook._before_step(optimizer, (), {})


def test_all_groups_skip_a_step_also_if_one_of_them_is_fused(make_runner):
    hook = watching(make_runner())
    weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
    groups = [dict(params=[x], fused=i == 0) for i, x in enumerate(weights)]
    optimizer = torch.optim.AdamW(groups)
    for weight in weights:
        weight.grad = torch.full((4,), float('nan'))
    hook._before_step(optimizer, (), {})
    optimizer.step()
    assert all(weight.equal(torch.ones(4)) for weight in weights)


@pytest.mark.parametrize('before', [True, False])
def test_a_checkpoint_may_bring_another_kind_of_kernels(before, tmp_path):
    """The optimizer's state has the option ``fused``, and resuming takes it over."""
    cfg = tiny_pretraining(tmp_path)
    cfg.train_cfg.max_iters = 2
    cfg.optim_wrapper.optimizer.fused = before
    build_runner(cfg).train()
    cfg = tiny_pretraining(tmp_path)
    cfg.optim_wrapper.optimizer.fused = not before
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    cfg.default_hooks.non_finite.max_skips = 1
    runner = build_runner(cfg)
    runner.register_hook(Poison(5))
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 1
    assert all(each.isfinite().all() for each in runner.model.parameters())


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(OptimWrapper):
    """``AmpOptimWrapper`` on a CPU, which it refuses."""

    _scale_update_param = None

    def __init__(self, init_scale, **options):
        super().__init__(**options)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)

    backward = AmpOptimWrapper.backward
    step = AmpOptimWrapper.step


class Overflow(Hook):
    """Make the first parameter's gradient infinite at some iterations."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def before_train(self, runner):
        def overflow(grad):
            return grad * float('inf') if runner.iter + 1 in self.iterations else grad

        trained = (each for each in runner.model.parameters() if each.requires_grad)
        next(trained).register_hook(overflow)


def scaled_run(folder, fused, scale=2.0**16, overflows=(), clip=None):
    """Losses' gradient norms of a run with a loss scale, or without one (None)."""
    cfg = tiny_pretraining(folder)
    cfg.optim_wrapper.clip_grad = clip
    cfg.optim_wrapper.optimizer.fused = fused
    if scale:
        cfg.optim_wrapper.update(type='ScaledOptimWrapper', init_scale=scale)
    runner = build_runner(cfg)
    runner.register_hook(Overflow(*overflows))
    runner.train()
    return runner.message_hub.get_scalar('train/grad_norm').data[0].tolist()


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('clip', [None, dict(max_norm=0.5)])
def test_an_overflow_with_a_loss_scale_is_no_error(fused, clip, tmp_path):
    found = scaled_run(tmp_path / 'scaled', fused, overflows=[9], clip=clip)
    expected = scaled_run(tmp_path / 'plain', fused, scale=None, clip=clip)
    assert len(found) == 8  # the overflow has no norm
    assert found == pytest.approx(expected[:8], rel=1e-4)


def test_the_first_step_may_overflow(tmp_path):
    found = scaled_run(tmp_path, False, overflows=[1], clip=dict(max_norm=0.5))
    assert len(found) == 8 and np.isfinite(found).all()


@pytest.mark.parametrize('fused', [True, False])
def test_overflows_at_any_scale_are_an_error(fused, tmp_path):
    with pytest.raises(UserError, match='the loss scale has fallen to 0.5 at itera'):
        scaled_run(tmp_path, fused, scale=2.0, overflows=range(3, 9))


def test_bad_option():
    with pytest.raises(UserError, match="max_skips must be an int from 0, got '1'"):
        NonFiniteHook(max_skips='1')


@MODELS.register_module()
class TwoSteps(MixMIM):
    """A model that steps an optimizer for the encoder and one for the rest."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        loss, log_vars = self.parse_losses(self._run_forward(data, mode='loss'))
        optim_wrapper.zero_grad()
        loss.backward()
        for each in optim_wrapper.values():
            each.step()
        return log_vars


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.lr = optim_wrapper_cfg['lr']

    def __call__(self, model):
        parts = dict(encoder=model.backbone, decoder=model.neck)
        return OptimWrapperDict(
            **{
                name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=self.lr))
                for name, part in parts.items()
            }
        )


def test_several_optimizers_train_stop_and_resume(make_runner, tmp_path):
    def config():
        cfg = tiny_pretraining(tmp_path)
        cfg.model.type = 'TwoSteps'
        cfg.optim_wrapper = dict(constructor='TwoOptimizers', lr=0.01)
        return cfg

    with pytest.raises(UserError, match='The loss is nan at iteration 4') as raised:
        make_runner(4, cfg=config()).train()
    assert 'max_skips' not in str(raised.value)  # nothing can be skipped
    cfg = config()
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    runner = make_runner(cfg=cfg)
    runner.train()
    assert runner.iter == 9 and (tmp_path / 'iter_9.pth').exists()
