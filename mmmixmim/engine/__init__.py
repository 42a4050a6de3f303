"""Hooks, loops, optimizer groups, learning rate schedules and strategies."""

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
from .strategies import DeepSpeedStrategy, FSDPStrategy

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'DeepSpeedStrategy',
    'FSDPStrategy',
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
