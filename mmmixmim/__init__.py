"""MixMIM self-supervised pretraining for OpenMMLab."""

from .model_hub import register_models
from .version import __version__

register_models()

__all__ = ['__version__']
