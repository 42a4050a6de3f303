"""Probing, model complexity, metrics of pretraining, and verdicts on a run."""

from .complexity import complexity
from .curves import History
from .diagnosis import Finding, diagnose
from .history import read_history
from .knn import knn
from .linear_probe import extract_features, linear_probe
from .metrics import FeatureHealth, ReconstructionLoss, feature_health
from .mistakes import find_mistakes

__all__ = [
    'FeatureHealth',
    'Finding',
    'History',
    'ReconstructionLoss',
    'complexity',
    'diagnose',
    'extract_features',
    'feature_health',
    'find_mistakes',
    'knn',
    'linear_probe',
    'read_history',
]
