"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .plain_checkpoint import PlainCheckpointHook
from .unreadable_images import UnreadableImagesHook

__all__ = [
    'AnnotationCheckHook',
    'ClassCheckHook',
    'PlainCheckpointHook',
    'UnreadableImagesHook',
]
