"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .diagnosis import DiagnosisHook
from .online_probe import OnlineProbeHook
from .progress_line import ProgressLineHook
from .reconstruction_pictures import ReconstructionHook
from .report import ReportHook

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'DiagnosisHook',
    'OnlineProbeHook',
    'ProgressLineHook',
    'ReconstructionHook',
    'ReportHook',
]
