"""Hooks of the project."""

from .class_check import ClassCheckHook

__all__ = ['ClassCheckHook']
