"""Runner hooks."""

from .annotation_check import AnnotationCheckHook
from .class_check import ClassCheckHook

__all__ = ['AnnotationCheckHook', 'ClassCheckHook']
