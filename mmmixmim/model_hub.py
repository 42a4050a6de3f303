"""Register this project's models with mmpretrain's model hub.

After ``import mmmixmim``, ``mmpretrain.list_models``, ``get_model`` and
``inference_model`` find them by name.
"""

from pathlib import Path

from mmpretrain.apis import ModelHub

__all__ = ['register_models']


def register_models() -> None:
    """Register the models in ``model-index.yml``. Idempotent."""
    package = Path(__file__).parent
    # The root of a checkout, then the folder that a wheel installs for MIM.
    for root in (package.parent, package.parent / '+mmmixmim' / '.mim'):
        index = root / 'model-index.yml'
        if index.is_file() and (root / 'configs' / 'mixmim').is_dir():
            if not ModelHub.has('mixmim-tiny_1xb64-coslr-20e_digits'):
                ModelHub.register_model_index(index, config_prefix=root)
            return
