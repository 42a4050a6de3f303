"""Linear probing, model complexity, and verdicts on a run."""

from .complexity import complexity
from .diagnosis import Finding, History, diagnose
from .history import read_history
from .linear_probe import extract_features, linear_probe

__all__ = [
    'Finding',
    'History',
    'complexity',
    'diagnose',
    'extract_features',
    'linear_probe',
    'read_history',
]
