"""Linear probing and model complexity."""

from .complexity import complexity
from .linear_probe import extract_features, linear_probe

__all__ = ['complexity', 'extract_features', 'linear_probe']
