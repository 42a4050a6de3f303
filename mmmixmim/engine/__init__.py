"""Hooks, loops, optimizer groups, learning rate schedules and strategies."""

from .held_out_loop import HeldOutLoop
from .hooks import (
    AnnotationCheckHook,
    ClassCheckHook,
    CompileLossHook,
    DiagnosisHook,
    NonFiniteHook,
    OnlineProbeHook,
    PlainCheckpointHook,
    PreemptionHook,
    ProgressLineHook,
    ReconstructionHook,
    ReportHook,
    SafeCheckpointHook,
    UnreadableImagesHook,
)
from .loops import ResumableEpochLoop, ResumableIterLoop
from .optimizers import LayerDecayOptimWrapperConstructor
from .quiet_runner import QuietRunner
from .schedulers import WarmupCosineLR
from .strategies import DeepSpeedStrategy, FSDPStrategy

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'CompileLossHook',
    'DeepSpeedStrategy',
    'DiagnosisHook',
    'FSDPStrategy',
    'HeldOutLoop',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteHook',
    'OnlineProbeHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ProgressLineHook',
    'QuietRunner',
    'ReconstructionHook',
    'ReportHook',
    'ResumableEpochLoop',
    'ResumableIterLoop',
    'SafeCheckpointHook',
    'UnreadableImagesHook',
    'WarmupCosineLR',
]
