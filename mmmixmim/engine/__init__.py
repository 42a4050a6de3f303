"""Hooks, optimizer parts and schedules for MMEngine runners."""

from .hooks import ClassCheckHook
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = ['ClassCheckHook', 'LayerDecayOptimWrapperConstructor', 'WarmupCosineLR']
