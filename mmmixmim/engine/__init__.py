"""Hooks, optimizer wrapper constructors, learning rate schedules and strategies."""

from .hooks import AnnotationCheckHook, ClassCheckHook
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR
from .strategies import DeepSpeedStrategy, FSDPStrategy

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'DeepSpeedStrategy',
    'FSDPStrategy',
    'LayerDecayOptimWrapperConstructor',
    'WarmupCosineLR',
]
