"""Linear probing and model complexity."""

from .complexity import complexity
from .linear_probe import extract_features, linear_probe
from .mistakes import find_mistakes

__all__ = ['complexity', 'extract_features', 'find_mistakes', 'linear_probe']
