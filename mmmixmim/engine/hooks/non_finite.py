"""Stop, or skip a step, where loss or gradients are not finite."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from mmmixmim.registry import HOOKS
from mmmixmim.runtime import write_json
from mmmixmim.validation import StoppedRunError, UserError

from ..wrappers import optim_wrappers, unwrapped

LARGEST = 5  # gradients that a report lists
LAST = 10  # losses that a report lists


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Log the norm of the gradients, and stop where it or the loss is not finite.

    It looks at the gradients just before the optimizer's step and skips the step of bad
    ones, so the weights stay finite and no checkpoint holds NaN.
    ``non_finite_N.json`` in the work folder lists learning rate, last losses, largest
    gradient norms by parameter, and the files of the batch.

    Fused Adam and AdamW skip the step by themselves, on the device, and the norm is
    read after the loss, so the hook adds no wait for a GPU unless ``clip_grad`` is set.
    Other optimizers wait once per step.

    ``grad_norm`` in the log is the norm before clipping by the norm, and after clipping
    by value. It costs one pass over the gradients, which it does not change.

    With a loss scale (float16) a step whose gradients overflow is skipped and the scale
    halved. This is no error, and the step has no ``grad_norm``. A scale below 1 is one:
    then the gradients are not finite at any scale.

    DeepSpeed makes its steps by itself, and a model with several optimizers steps them
    in its own order: there the run stops where the loss is not finite, and nothing is
    skipped.

    Args:
        max_skips: Number of steps in a run that may be skipped instead. Defaults to 0:
            stop at the first one.

    Raises:
        StoppedRunError: At the first bad step that may not be skipped.
    """

    priority = 'HIGH'  # after the loss is logged, before anything is averaged or saved

    def __init__(self, max_skips: int = 0) -> None:
        if type(max_skips) is not int or max_skips < 0:
            raise UserError(f'max_skips must be an int from 0, got {max_skips!r}.')
        self.max_skips = max_skips

    def before_train(self, runner: Runner) -> None:
        """Watch the steps of the optimizer."""
        self._runner = runner
        self._norms: Tensor | None = None  # of each gradient of the last step
        self._marked = False  # whether found_inf of the optimizer is ours
        self._counted = -1
        wrapper = runner.optim_wrapper
        self._handles = []
        self._steps_once = len(optim_wrappers(wrapper)) == 1
        if self._steps_once:
            optimizer = wrapper.optimizer
            self._handles = [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer alone."""
        for handle in self._handles:
            handle.remove()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: dict
    ) -> None:
        """Stop or count if the loss or the gradients were not finite."""
        wrapper = runner.optim_wrapper
        loss = torch.as_tensor((outputs or {}).get('loss', 0.0)).item()
        norms = self._read_norms()
        scale = _loss_scale(wrapper)
        if _scaler(wrapper) and self._is_clipped():
            self._forget_overflow()
        if math.isfinite(loss) and norms is None and scale >= 1:
            return
        text = _write_report(runner, loss, norms or {}, scale, _files(data_batch))
        skips = self._count_skip(runner)
        if not self._steps_once or skips > self.max_skips:
            raise StoppedRunError(f'{text} {self._way_out()}')
        runner.logger.warning(f'{text} Step skipped, {skips} of {self.max_skips}.')

    def _count_skip(self, runner: Runner) -> int:
        """Count a bad step; the iterations of an accumulation end in the same one."""
        step = runner.iter // getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        skips = runner.message_hub.get_info('skipped_steps', 0)
        if step != self._counted:
            skips += 1
            self._counted = step
            runner.message_hub.update_info('skipped_steps', skips)
        return skips

    def _way_out(self) -> str:
        """What to do about a run that has been stopped."""
        text = (
            'Lower the learning rate (optim_wrapper.optimizer.lr) or remove these files'
        )
        if not self._steps_once:
            return f'{text}.'
        return (
            f'All weights are still finite. {text}, or skip up to N such steps with '
            'default_hooks.non_finite.max_skips=N.'
        )

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        self._stepped = _with_gradient(optimizer)
        self._norms = _norms_of_gradients(self._stepped, optimizer)
        if self._is_clipped():
            total = self._norms.new_tensor(self._logged_norm())
        else:
            total = self._over_shards(self._norms.norm())
        # Gradients that are unscaled already leave no grad_scale.
        scale = getattr(optimizer, 'grad_scale', None)
        self._total = total if scale is None else total / scale
        self._scaled = getattr(optimizer, 'found_inf', None) is not None
        if self._scaled:
            return  # GradScaler told a fused optimizer whether to skip the step
        if _skips_by_itself(optimizer):
            optimizer.found_inf = total.isfinite().logical_not().float()
            self._marked = True
        elif not total.isfinite():
            optimizer.zero_grad(set_to_none=True)  # the step finds nothing to do

    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if self._marked:
            del optimizer.found_inf
            self._marked = False

    def _read_norms(self) -> dict[str, float] | None:
        """Log the norm of the last step, and list the largest if it is not finite."""
        norms, self._norms = self._norms, None
        if norms is None:
            return None
        total = self._total.item()
        finite = math.isfinite(total)
        if self._scaled and not finite:
            return None  # the loss scale was too large
        if not self._is_clipped():
            self._runner.message_hub.update_scalar('train/grad_norm', total)
        elif not finite:  # clipping has made all of them NaN
            return {'all parameters together': total}
        return None if finite else _largest(self._runner, self._stepped, norms.tolist())

    def _is_clipped(self) -> bool:
        """Whether MMEngine logs the norm, before it clips by it."""
        wrapper = self._runner.optim_wrapper
        if not wrapper.clip_grad_kwargs or wrapper.grad_name != 'grad_norm':
            return False
        return wrapper.clip_func is not nn.utils.clip_grad_value_

    def _logged_norm(self) -> float:
        return self._runner.message_hub.get_scalar('train/grad_norm').current()

    def _forget_overflow(self) -> None:
        """Drop the norm that MMEngine logs of a step which the loss scaler skips."""
        scalars = self._runner.message_hub.log_scalars
        if not (buffer := scalars.get('train/grad_norm')):
            return
        values, counts = buffer.data
        if math.isfinite(values[-1]):
            return
        del scalars['train/grad_norm']
        if len(values) > 1:
            scalars['train/grad_norm'] = HistoryBuffer(values[:-1], counts[:-1])

    def _over_shards(self, norm: Tensor) -> Tensor:
        """The norm of gradients that are spread over the processes."""
        if not isinstance(self._runner.model, MMFullyShardedDataParallel):
            return norm
        square = norm.square()
        all_reduce(square)
        return square.sqrt()


def _with_gradient(optimizer: Optimizer) -> list[nn.Parameter]:
    return [
        each
        for group in optimizer.param_groups
        for each in group['params']
        if each.grad is not None
    ]


def _norms_of_gradients(parameters: list[nn.Parameter], optimizer: Optimizer) -> Tensor:
    if not parameters:  # of this rank
        device = optimizer.param_groups[0]['params'][0].device
        return torch.zeros(0, device=device)
    device = parameters[0].device
    norms = torch._foreach_norm([each.grad for each in parameters])
    return torch.stack([each.float().to(device) for each in norms])


def _skips_by_itself(optimizer: Optimizer) -> bool:
    """Whether the kernels that run read ``found_inf``.

    The groups tell, not the arguments of the optimizer: a checkpoint that is resumed
    may bring its own.
    """
    return isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)) and all(
        group.get('fused') for group in optimizer.param_groups
    )


def _loss_scale(wrapper: OptimWrapper) -> float:
    """Scale of the loss in float16, 1 without one."""
    scaler = _scaler(wrapper)
    return scaler.get_scale() if scaler else 1.0


def _scaler(wrapper: OptimWrapper) -> GradScaler | None:
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _largest(
    runner: Runner, parameters: list[nn.Parameter], norms: list[float]
) -> dict[str, float]:
    """The largest norms by parameter, those that are not finite first."""
    model = unwrapped(runner.model)
    names = {id(each): name for name, each in model.named_parameters()}
    named = {
        names.get(id(each), 'a parameter outside the model'): norm
        for each, norm in zip(parameters, norms, strict=True)
    }
    order = sorted(named, key=lambda n: (math.isfinite(named[n]), -abs(named[n])))
    return {name: named[name] for name in order[:LARGEST]}


def _files(data_batch: dict) -> list[str]:
    """Paths of the samples of a batch, or their numbers if they come from no files."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return [
        str(sample.get('img_path') or f'sample {sample.get("sample_idx")}')
        for sample in samples or ()
    ]


def _write_report(
    runner: Runner, loss: float, norms: dict, scale: float, files: list[str]
) -> str:
    """Write a report, and say in one line what it holds."""
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    report = dict(
        iteration=runner.iter + 1,
        learning_rate=next(iter(runner.optim_wrapper.get_lr().values()))[0],
        loss=loss,
        loss_scale=scale,
        last_losses=[float(each) for each in losses[-LAST - 1 : -1]],
        gradient_norms=norms,
        files=files,
    )
    path = Path(runner.work_dir, f'non_finite_{runner.iter + 1}.json')
    if get_world_size() > 1:  # each has files of its own
        path = path.with_stem(f'{path.stem}_rank{get_rank()}')
    write_json(path, report)
    return _text(report, path)


def _text(report: dict, path: Path) -> str:
    """One line about a report."""
    norms = report['gradient_norms']
    what = f'The loss is {report["loss"]:g}'
    if norms:
        name = next(iter(norms))
        what += f' and the gradient of {name} has the norm {norms[name]:g}'
    if report['loss_scale'] < 1:
        what += f', and the loss scale has fallen to {report["loss_scale"]:g}'
    losses = ', '.join(f'{each:.4g}' for each in report['last_losses'][-3:])
    return (
        f'{what} at iteration {report["iteration"]} (learning rate '
        f'{report["learning_rate"]:.3g}; losses before it: {losses or "none"}). {path} '
        f'has more, and lists the {len(report["files"])} files of the batch.'
    )
