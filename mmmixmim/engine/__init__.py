"""Hooks, loops, optimizer wrapper constructors and learning rate schedules."""

from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    NonFiniteHook,
    PlainCheckpointHook,
    PreemptionHook,
    SafeCheckpointHook,
    UnreadableImagesHook,
)
from .loops import ResumableEpochLoop, ResumableIterLoop
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SafeCheckpointHook',
    'UnreadableImagesHook',
    'WarmupCosineLR',
]
