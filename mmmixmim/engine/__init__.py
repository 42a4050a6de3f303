"""Hooks, loops, optimizer groups, learning rate schedules and strategies."""

from .held_out_loop import HeldOutLoop
from .hooks.annotation_check import AnnotationCheckHook
from .hooks.class_check import ClassCheckHook
from .hooks.compile_loss import CompileLossHook
from .hooks.diagnosis import DiagnosisHook
from .hooks.non_finite import NonFiniteHook
from .hooks.online_probe import OnlineProbeHook
from .hooks.plain_checkpoint import PlainCheckpointHook
from .hooks.preemption import PreemptionHook
from .hooks.progress_line import ProgressLineHook
from .hooks.reconstruction_pictures import ReconstructionHook
from .hooks.report import ReportHook
from .hooks.safe_checkpoint import SafeCheckpointHook
from .hooks.unreadable_images import UnreadableImagesHook
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
