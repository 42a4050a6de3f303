"""Hooks, optimizer wrapper constructors and learning rate schedules."""

from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    PlainCheckpointHook,
    UnreadableImagesHook,
)
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'LayerDecayOptimWrapperConstructor',
    'PlainCheckpointHook',
    'UnreadableImagesHook',
    'WarmupCosineLR',
]
