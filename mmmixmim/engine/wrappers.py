"""Models in wrappers, such as DDP and FSDP."""

from __future__ import annotations

from mmengine.model import MMFullyShardedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import FlexibleRunner, Runner
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper such as DDP, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def original_name(name: str) -> str:
    """Strip what FSDP, activation checkpointing and ``torch.compile`` insert."""
    for wrapper in (
        '_fsdp_wrapped_module.',
        '_checkpoint_wrapped_module.',
        '_orig_mod.',
    ):
        name = name.replace(wrapper, '')
    return name


def optim_wrappers(wrapper: object) -> list[OptimWrapper]:
    """List MMEngine's optimizer wrappers, one for each optimizer.

    Args:
        wrapper: The optimizer wrapper of a runner. ``OptimWrapperDict``, of several
            optimizers, is an ``OptimWrapper`` too, with hardly any of its attributes.

    Returns:
        The wrappers. Empty with engines such as DeepSpeed, which step by themselves.
    """
    if isinstance(wrapper, OptimWrapperDict):
        return list(wrapper.values())
    return [wrapper] if isinstance(wrapper, OptimWrapper) else []


def accumulated(runner: Runner) -> bool:
    """Whether no gradients wait for an update, after a training iteration."""
    wrappers = optim_wrappers(runner.optim_wrapper)
    engine = runner.model
    if not wrappers and hasattr(engine, 'micro_steps'):  # DeepSpeed's, which counts
        return engine.micro_steps % engine.gradient_accumulation_steps() == 0
    return all(each.should_update() for each in wrappers)


def is_sharded(runner: Runner | FlexibleRunner) -> bool:
    """Whether a single process cannot run the model: with FSDP and DeepSpeed.

    All processes must take part in each of its forward passes.
    """
    # MMEngine's wrapper of DeepSpeed's engine is no module.
    model = runner.model
    return not isinstance(model, nn.Module) or isinstance(
        model, MMFullyShardedDataParallel
    )
