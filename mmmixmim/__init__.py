"""MixMIM self-supervised pretraining for OpenMMLab."""

from .checkpoint import register_loaders
from .model_hub import register_models
from .version import __version__

# The one thing that importing this package changes in MMEngine: how it loads
# checkpoints of local files and http addresses.
register_loaders()
register_models()

__all__ = ['__version__']
