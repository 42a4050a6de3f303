"""Models that no process has as a whole."""

from __future__ import annotations

from mmengine.model import MMFullyShardedDataParallel
from mmengine.runner import FlexibleRunner, Runner
from torch import nn


def is_sharded(runner: Runner | FlexibleRunner) -> bool:
    """Whether a single process cannot run the model: with FSDP and DeepSpeed.

    All processes must take part in each of its forward passes.
    """
    # MMEngine's wrapper of DeepSpeed's engine is no module.
    model = runner.model
    return not isinstance(model, nn.Module) or isinstance(
        model, MMFullyShardedDataParallel
    )
