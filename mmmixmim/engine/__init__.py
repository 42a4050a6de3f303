"""Optimizer parts and schedules for MMEngine runners."""

from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = ['LayerDecayOptimWrapperConstructor', 'WarmupCosineLR']
