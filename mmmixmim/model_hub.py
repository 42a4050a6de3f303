"""Make our models known to mmpretrain by their names.

``mmpretrain.list_models``, ``get_model`` and ``inference_model`` know them once
``mmmixmim`` is imported.
"""

from pathlib import Path

from mmpretrain.apis import ModelHub

__all__ = ['register_models']


def register_models() -> None:
    """Register what ``model-index.yml`` lists; again and again is fine."""
    package = Path(__file__).parent
    # A checkout, and what a wheel installs beside the package for mim.
    for root in (package.parent, package.parent / '_mmmixmim' / '.mim'):
        index = root / 'model-index.yml'
        if index.is_file() and (root / 'configs' / 'mixmim').is_dir():
            if not ModelHub.has('mixmim-tiny_1xb64-coslr-20e_digits'):
                ModelHub.register_model_index(index, config_prefix=root)
            return
