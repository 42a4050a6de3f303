"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .compile_loss import CompileLossHook
from .diagnosis import DiagnosisHook
from .non_finite import NonFiniteHook
from .online_probe import OnlineProbeHook
from .plain_checkpoint import PlainCheckpointHook
from .preemption import PreemptionHook
from .progress_line import ProgressLineHook
from .reconstruction_pictures import ReconstructionHook
from .report import ReportHook
from .safe_checkpoint import SafeCheckpointHook
from .unreadable_images import UnreadableImagesHook

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'CompileLossHook',
    'DiagnosisHook',
    'NonFiniteHook',
    'OnlineProbeHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ProgressLineHook',
    'ReconstructionHook',
    'ReportHook',
    'SafeCheckpointHook',
    'UnreadableImagesHook',
]
