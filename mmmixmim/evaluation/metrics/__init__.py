"""Metrics of pretraining, on held-out images."""

from .feature_health import FeatureHealth, feature_health
from .reconstruction_loss import ReconstructionLoss

__all__ = ['FeatureHealth', 'ReconstructionLoss', 'feature_health']
