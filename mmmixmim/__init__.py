"""MixMIM self-supervised pretraining for OpenMMLab."""

import importlib
import warnings

with warnings.catch_warnings():
    # mmcv's, where its compiled ops are missing, which only detection needs.
    warnings.filterwarnings('ignore', 'Fail to import', module='mmcv')
    from .checkpoint import register_loaders
    from .model_hub import register_models
from .version import __version__

# The one thing that importing this package changes in MMEngine: how checkpoints are
# loaded, so that no code in them runs.
register_loaders()
register_models()

__all__ = ['__version__', 'finetune', 'predict', 'pretrain', 'probe']  # noqa: F822


def __getattr__(name: str):
    """Import the commands when they are used: they import the whole package."""
    if name in ('finetune', 'predict', 'pretrain', 'probe'):
        return getattr(importlib.import_module(f'.cli.{name}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
