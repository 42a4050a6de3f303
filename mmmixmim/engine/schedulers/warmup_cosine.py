"""The learning-rate schedule of MAE, which the authors of MixMIM use."""

from __future__ import annotations

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from mmmixmim.registry import PARAM_SCHEDULERS
from mmmixmim.validation import UserError


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(LRSchedulerMixin, _ParamScheduler):
    r"""Linear warm-up from 0, then half a cosine down to a minimum.

    With learning rate :math:`l`, minimum :math:`m`, warm-up :math:`w` and end
    :math:`T`, the rate at time :math:`t` is

    - :math:`l t / w` for :math:`t < w`, and
    - :math:`m + (l - m) (1 + \cos(\pi (t - w) / (T - w))) / 2` from then on.

    Groups of layer decay get both times their scale, as the authors have it.

    MMEngine's chain of ``LinearLR`` and ``CosineAnnealingLR`` multiplies the
    previous rate at each step, so it cannot start from 0. It also reaches the
    full rate one step before the warm-up ends. Here each rate follows from the
    time alone.

    With ``convert_to_iter_based=True`` in its config, times given in epochs
    hold at every fraction of an epoch, as in the authors' code.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Time of the warm-up, in epochs or, with ``by_epoch=False``, in
            iterations.
        end: Time at which the minimum is reached, in the same unit.
        min_lr: The minimum. Unlike the learning rate, ``auto_scale_lr`` does not
            scale it to the batch. Defaults to 0.
        by_epoch: The unit of time. Defaults to True.
        last_step: Step to resume from. Defaults to -1: a new start.
        verbose: Whether to print every rate. Defaults to False.
    """

    def __init__(
        self,
        optimizer,
        warmup: int,
        end: int,
        min_lr: float = 0.0,
        by_epoch: bool = True,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        _check_times(warmup, end)
        if min_lr < 0:
            raise UserError(f'min_lr must be at least 0, got {min_lr}.')
        self.warmup = warmup
        self.min_lr = min_lr
        super().__init__(
            optimizer,
            end=end + 1,  # steps up to and including the end are ours
            by_epoch=by_epoch,
            last_step=last_step,
            verbose=verbose,
        )

    @classmethod
    def build_iter_from_epoch(
        cls, *args, warmup: int, end: int, epoch_length: int, by_epoch=True, **kwargs
    ) -> WarmupCosineLR:
        """Build a schedule over iterations from times in epochs."""
        if not by_epoch:
            raise UserError('Only times in epochs (by_epoch=True) can be converted.')
        _check_times(warmup, end)
        times = dict(warmup=warmup * epoch_length, end=end * epoch_length)
        return cls(*args, **times, by_epoch=False, **kwargs)

    def _get_value(self) -> list[float]:
        time, end = self.last_step, self.end - 1
        if time < self.warmup:
            return [value * time / self.warmup for value in self.base_values]
        phase = math.pi * (time - self.warmup) / (end - self.warmup)
        factor = (1 + math.cos(phase)) / 2
        groups = self.optimizer.param_groups
        minima = [self.min_lr * group.get('lr_scale', 1.0) for group in groups]
        return [
            minimum + (value - minimum) * factor
            for value, minimum in zip(self.base_values, minima, strict=True)
        ]


def _check_times(warmup: int, end: int) -> None:
    if not 0 <= warmup < end:
        raise UserError(
            f'warmup must be at least 0 and below end, got warmup={warmup} and '
            f'end={end}: change both together, by --cfg-options as '
            'param_scheduler.0.warmup and param_scheduler.0.end.'
        )
