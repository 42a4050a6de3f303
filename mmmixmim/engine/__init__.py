"""Hooks, training loops, optimizer wrapper constructors and learning rate schedules."""

from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    NonFiniteHook,
    PreemptionHook,
    SafeCheckpointHook,
)
from .loops import ResumableEpochLoop, ResumableIterLoop
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteHook',
    'PreemptionHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SafeCheckpointHook',
    'WarmupCosineLR',
]
