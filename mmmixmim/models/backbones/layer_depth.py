"""How the layers of a backbone are numbered, for layer-wise learning rates.

mmdet and mmseg number none. mmpretrain numbers some by ``get_layer_depth``, of which
HiViT's gives every block the head's number. So one table numbers the rest alike:

- The embedding is layer 0, each block the next one.
- Downsampling belongs to the block that follows, as in the authors' code.
- The norm of the last map belongs to the last block. Norms of earlier maps are new in
  every fine-tuning, so they belong to the head.
- The head is the last layer.

ConvNeXt is not in it: its ``get_layer_depth`` groups blocks as its authors do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn

from mmmixmim.checkpoint.names import MAP_NORM
from mmmixmim.validation import UserError


def _swin(backbone: nn.Module, merges_first: bool = False) -> list[list[str]]:
    """Names below ``stages``. V2 merges patches first in a stage, V1 at its end."""
    layers = [['patch_embed']]
    for i, stage in enumerate(backbone.stages):
        blocks = [[f'stages.{i}.blocks.{j}'] for j in range(len(stage.blocks))]
        blocks[0].append(f'stages.{i if merges_first else i - 1}.downsample')
        layers += blocks
    layers[-1].append(f'norm{len(backbone.stages) - 1}')
    return layers


def _pvt(backbone: nn.Module) -> list[list[str]]:
    """``layers.i`` holds a patch embedding, blocks, and in PVT V2 a norm."""
    layers = []
    for i, (_, modules, _) in enumerate(backbone.layers):
        stem = [f'layers.{i}.0']
        blocks = [f'layers.{i}.1.{j}' for j in range(len(modules))]
        if hasattr(modules[0], 'pos_embed'):
            stem.append(blocks.pop(0))
        stage = [[name] for name in blocks]
        if i == 0:
            stage.insert(0, stem)
        else:
            stage[0] += stem
        stage[-1].append(f'layers.{i}.2')
        layers += stage
    return layers


def _hivit(backbone: nn.Module) -> list[list[str]]:
    """Patch merging stands in the list of blocks."""
    layers, merging = [['patch_embed']], []
    for i, block in enumerate(backbone.blocks):
        if hasattr(block, 'reduction'):
            merging = [f'blocks.{i}']
        else:
            layers.append([f'blocks.{i}', *merging])
            merging = []
    return layers


# Lists what stands in each layer, from the embedding to the last block. The package
# tells a class from timm's of the same name.
LAYERS_OF: dict[str, Callable[[nn.Module], list[list[str]]]] = {
    'mmpretrain.SwinTransformer': _swin,
    'mmdet.SwinTransformer': _swin,
    'mmseg.SwinTransformer': _swin,
    'mmpretrain.SwinTransformerV2': partial(_swin, merges_first=True),
    'mmdet.PyramidVisionTransformer': _pvt,
    'mmpretrain.HiViT': _hivit,
}


def layer_depths(
    backbone: nn.Module, names: list[str]
) -> dict[str, tuple[int, int]] | None:
    """Tell the layer of each parameter.

    Of the classes that ``backbone`` extends, the nearest one that is in
    :data:`LAYERS_OF` or has mmpretrain's ``get_layer_depth`` decides.

    Args:
        backbone: Any module.
        names: Names of its parameters, without what wrappers insert.

    Returns:
        By name the layer, and the number of layers with the head's, which is the last.
        None if nothing numbers the layers of ``backbone``.

    Raises:
        UserError: If the layer of a parameter is unknown, or ``get_layer_depth`` gives
            all blocks the same one, or the last block another than the last, as
            ConvNeXt's does without four stages.
    """
    for cls in type(backbone).__mro__:
        if list_layers := LAYERS_OF.get(_key(cls)):
            return _look_up(backbone, list_layers(backbone), names)
        method = vars(cls).get('get_layer_depth')
        # mmpretrain's classifiers have a method of this name, without the prefix.
        if method is not None and 'prefix' in inspect.signature(method).parameters:
            return _ask(backbone, names)
    return None


class NumbersLayers:
    """Mixin: ``get_layer_depth`` by the table, which mmpretrain's constructor asks."""

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Tell the layer of a parameter, for layer-wise learning rates.

        Args:
            param_name: Name of the parameter.
            prefix: Prefix of the backbone's parameters.

        Returns:
            The layer, and the number of layers. The last layer is the head, to which
            all names without ``prefix`` belong.
        """
        entries = (LAYERS_OF.get(_key(cls)) for cls in type(self).__mro__)
        list_layers = next(filter(None, entries))
        layers = list_layers(self)
        if not param_name.startswith(prefix):
            return len(layers), len(layers) + 1
        name = param_name.removeprefix(prefix)
        return _look_up(self, layers, [name])[name]


def _key(cls: type) -> str:
    return f'{cls.__module__.split(".")[0]}.{cls.__name__}'


def _look_up(
    backbone: nn.Module, layers: list[list[str]], names: list[str]
) -> dict[str, tuple[int, int]]:
    numbers = {part: depth for depth, parts in enumerate(layers) for part in parts}

    def depth(name: str) -> int:
        parts = name.split('.')
        for size in range(1, len(parts)):
            if (found := numbers.get('.'.join(parts[:size]))) is not None:
                return found
        if MAP_NORM.match(name):
            return len(layers)
        if len(parts) == 1:  # position embeddings and mask tokens
            return 0
        raise UserError(
            f'The layer of {name} in {type(backbone).__name__} is unknown, which '
            'layer-wise learning rate decay needs: add a get_layer_depth to the class '
            'that has it, or use the default constructor.'
        )

    return {name: (depth(name), len(layers) + 1) for name in names}


def _ask(backbone: nn.Module, names: list[str]) -> dict[str, tuple[int, int]]:
    # Some methods, as ResNet's, know the prefix that backbones have in OpenMMLab.
    prefix = 'backbone.'
    kind = type(backbone).__name__
    try:
        depths = {
            name: backbone.get_layer_depth(f'{prefix}{name}', prefix) for name in names
        }
    except NotImplementedError as error:  # such as ResNet-18
        raise UserError(
            f'{kind}.get_layer_depth does not support this arch, which layer-wise '
            'learning rate decay needs: use another backbone or the default '
            'constructor.'
        ) from error
    found = sorted({depth for depth, _ in depths.values() if depth > 0})
    layers = max((count for _, count in depths.values()), default=0)
    if layers > 3 and (len(found) < 2 or layers - 2 not in found):
        raise UserError(
            f'{kind}.get_layer_depth does not count blocks up to {layers - 2}, the '
            f'last layer before the head, but gives them '
            f'{", ".join(map(str, found)) or 0} of {layers}, so layer-wise learning '
            'rates would be wrong: correct it, or use the default constructor.'
        )
    return depths
