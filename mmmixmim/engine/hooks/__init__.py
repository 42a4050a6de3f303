"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .non_finite import NonFiniteHook
from .plain_checkpoint import PlainCheckpointHook
from .preemption import PreemptionHook
from .safe_checkpoint import SafeCheckpointHook
from .unreadable_images import UnreadableImagesHook

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'NonFiniteHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'SafeCheckpointHook',
    'UnreadableImagesHook',
]
