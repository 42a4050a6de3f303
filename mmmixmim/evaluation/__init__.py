"""Evaluation of pretrained encoders and of what models cost."""

from .complexity import complexity
from .linear_probe import extract_features, linear_probe

__all__ = ['complexity', 'extract_features', 'linear_probe']
