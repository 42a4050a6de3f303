"""The learning rate schedule of MAE, which MixMIM uses."""

from __future__ import annotations

import math
import warnings

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
    - :math:`m + (l - m) (1 + \cos(\pi (t - w) / (T - w))) / 2` afterwards.

    With layer-wise decay, :math:`l` and :math:`m` are multiplied by the
    ``lr_scale`` of the parameter group, as in the authors' code
    (``util/lr_sched.py`` of MAE).

    MMEngine's ``LinearLR`` and ``CosineAnnealingLR`` multiply the previous rate at
    each step, so they cannot start from 0, and ``LinearLR`` reaches the full rate
    one step early. This schedule computes each rate from the time alone.

    Set ``convert_to_iter_based=True`` in the config to give ``warmup`` and ``end``
    in epochs and update the rate at every iteration, as in the authors' code. While an
    optimizer wrapper accumulates gradients, the rate stays that of the first iteration,
    as there.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Length of the warm-up, in epochs or, with ``by_epoch=False``,
            iterations.
        end: Time at which the rate reaches ``min_lr``, in the same unit.
        min_lr: Minimum learning rate. ``auto_scale_lr`` does not scale it. Defaults
            to 0.
        by_epoch: Whether the unit of time is the epoch. Defaults to True.
        last_step: Step to resume from. Defaults to -1: start from scratch.
        verbose: Whether to print the rate at each step. Defaults to False.

    Raises:
        UserError: Unless ``0 <= warmup < end`` and ``min_lr >= 0``.
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
            end=end + 1,  # MMEngine excludes the end, this schedule includes it
            by_epoch=by_epoch,
            last_step=last_step,
            verbose=verbose,
        )

    @classmethod
    def build_iter_from_epoch(
        cls, *args, warmup: int, end: int, epoch_length: int, by_epoch=True, **kwargs
    ) -> WarmupCosineLR:
        """Build an iteration-based schedule from times in epochs."""
        if not by_epoch:
            raise UserError(
                'convert_to_iter_based=True needs by_epoch=True, got by_epoch=False: '
                'remove one of them.'
            )
        _check_times(warmup, end)
        times = dict(warmup=warmup * epoch_length, end=end * epoch_length)
        return cls(*args, **times, by_epoch=False, **kwargs)

    def step(self) -> None:
        """Advance by one step.

        MMEngine warns if the first step comes before that of the optimizer, which
        waits while gradients accumulate.
        """
        if self._global_step or getattr(self.optimizer, '_accumulative_counts', 1) == 1:
            super().step()
            return
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Detected call of')
            super().step()

    def load_state_dict(self, state_dict: dict) -> None:
        """Resume the time. Warm-up, end and minimum stay those of the config."""
        if state_dict.get('by_epoch') == self.by_epoch:
            own = {name: vars(self)[name] for name in ('warmup', 'end', 'min_lr')}
            state_dict = state_dict | own
        super().load_state_dict(state_dict)

    def _get_value(self) -> list[float]:
        time, end = self.last_step, self.end - 1
        if not self.by_epoch:
            time -= time % getattr(self.optimizer, '_accumulative_counts', 1)
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
            f'end={end}: set both with --cfg-options param_scheduler.0.warmup=... '
            'param_scheduler.0.end=...'
        )
