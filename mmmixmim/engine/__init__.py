"""Hooks, optimizer wrapper constructors and learning rate schedules."""

from .hooks import AnnotationCheckHook, ClassCheckHook, ProgressLineHook
from .optimizers import LayerDecayOptimWrapperConstructor
from .quiet_runner import QuietRunner
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'LayerDecayOptimWrapperConstructor',
    'ProgressLineHook',
    'QuietRunner',
    'WarmupCosineLR',
]
