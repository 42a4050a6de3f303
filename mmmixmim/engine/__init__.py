"""Loops, hooks, optimizer wrapper constructors and learning rate schedules."""

from .held_out_loop import HeldOutLoop
from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    DiagnosisHook,
    OnlineProbeHook,
    ReconstructionHook,
    ReportHook,
)
from .optimizers import LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'DiagnosisHook',
    'HeldOutLoop',
    'LayerDecayOptimWrapperConstructor',
    'OnlineProbeHook',
    'ReconstructionHook',
    'ReportHook',
    'WarmupCosineLR',
]
