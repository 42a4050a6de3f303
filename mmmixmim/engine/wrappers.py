"""Models in wrappers, such as DDP and FSDP."""

from __future__ import annotations

from mmengine.model import MMFullyShardedDataParallel, is_model_wrapper
from mmengine.runner import FlexibleRunner, Runner
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper such as DDP, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def is_sharded(runner: Runner | FlexibleRunner) -> bool:
    """Whether a single process cannot run the model: with FSDP and DeepSpeed.

    All processes must take part in each of its forward passes.
    """
    # MMEngine's wrapper of DeepSpeed's engine is no module.
    model = runner.model
    return not isinstance(model, nn.Module) or isinstance(
        model, MMFullyShardedDataParallel
    )
