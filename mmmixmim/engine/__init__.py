"""Loops, hooks, optimizer wrapper constructors and learning rate schedules."""

from .held_out_loop import HeldOutLoop
from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    DiagnosisHook,
    OnlineProbeHook,
    ProgressLineHook,
    ReconstructionHook,
    ReportHook,
)
from .optimizers import LayerDecayOptimWrapperConstructor
from .quiet_runner import QuietRunner
from .schedulers import WarmupCosineLR

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'DiagnosisHook',
    'HeldOutLoop',
    'LayerDecayOptimWrapperConstructor',
    'OnlineProbeHook',
    'ProgressLineHook',
    'QuietRunner',
    'ReconstructionHook',
    'ReportHook',
    'WarmupCosineLR',
]
