"""Hooks, optimizer parts and schedules for MMEngine runners."""

from .hooks import AnnotationCheckHook, ClassCheckHook
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'LayerDecayOptimWrapperConstructor',
    'WarmupCosineLR',
]
