"""Train with DeepSpeed's ZeRO."""

from __future__ import annotations

import importlib

import torch
from mmengine._strategy import DeepSpeedStrategy as MMEngineDeepSpeedStrategy
from torch import nn

from mmmixmim.registry import STRATEGIES
from mmmixmim.validation import MissingDependencyError

from .casts import check_casts


@STRATEGIES.register_module()
class DeepSpeedStrategy(MMEngineDeepSpeedStrategy):
    """MMEngine's DeepSpeed strategy, whose learning rate follows the batch size.

    MMEngine's ignores ``auto_scale_lr``. Its images per update include
    ``gradient_accumulation_steps``.

    Args:
        **kwargs: See MMEngine's strategy, e.g. ``zero_optimization`` and ``bf16``.

    Raises:
        MissingDependencyError: If DeepSpeed, or what MMEngine needs of it, is missing.
        UserError: If the model cannot compute in the precision.
    """

    def __init__(self, **kwargs) -> None:
        try:
            importlib.import_module('deepspeed')
            super().__init__(**kwargs)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith('deepspeed'):
                raise
            raise MissingDependencyError(
                f'DeepSpeedStrategy needs DeepSpeed below 0.19 ({error}). Install it '
                "with: pip install --no-build-isolation 'deepspeed<0.19'"
            ) from error

    def prepare(self, model: nn.Module | dict, *, dispatch_kwargs=None, **kwargs):
        """Build the model and its engine; see MMEngine's strategy."""
        batch_size = (dispatch_kwargs or {}).get('train_micro_batch_size_per_gpu', 1)
        self.config.setdefault('train_micro_batch_size_per_gpu', batch_size)
        return super().prepare(model, dispatch_kwargs=dispatch_kwargs, **kwargs)

    def build_optim_wrapper(self, optim_wrapper, model: nn.Module | None = None):
        """Build the optimizer wrapper and scale its learning rate."""
        self.optim_wrapper = super().build_optim_wrapper(optim_wrapper, model)
        self._scale_lr()
        return self.optim_wrapper

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        for name in ('bf16', 'fp16'):
            if self.config.get(name, {}).get('enabled'):
                check_casts(model, f'strategy.{name}.enabled=False')
        wrapper = super()._wrap_model(model)
        # gloo gathers by writing into views, which autograd refuses.
        wrapper.model.step = torch.no_grad()(wrapper.model.step)
        return wrapper
