"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook
from .report import ReportHook

__all__ = ['AnnotationCheckHook', 'ClassCheckHook', 'ReportHook']
