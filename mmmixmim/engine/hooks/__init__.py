"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .progress_line import ProgressLineHook

__all__ = ['AnnotationCheckHook', 'ClassCheckHook', 'ProgressLineHook']
