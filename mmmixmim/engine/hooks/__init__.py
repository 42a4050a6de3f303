"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .non_finite import NonFiniteHook
from .preemption import PreemptionHook
from .safe_checkpoint import SafeCheckpointHook

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'NonFiniteHook',
    'PreemptionHook',
    'SafeCheckpointHook',
]
