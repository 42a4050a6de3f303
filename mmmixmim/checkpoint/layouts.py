"""Translate state dicts between the authors', mmpretrain's and our layout.

A layout is how a project names and orders the parameters of the same model,
whole with its decoder (pretraining) or its classifier (fine-tuning).
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict

import torch
from torch import Tensor

from mmmixmim.validation import UserError

StateDict = dict[str, Tensor]

INDEX = 'relative_position_index'
TABLE = 'relative_position_bias_table'

# A name of every layout's own.
LAYOUTS = {
    'authors': 'patch_embed.proj.weight',
    'mmpretrain': 'backbone.patch_embed.projection.weight',
    'mmmixmim': 'backbone.patch_embed.proj.weight',
}
# Our names with what mmpretrain has for them, below the part that owns them.
MMPRETRAIN_NAMES = (
    ('decoder_norm.', 'ln1.'),
    ('patch_embed.proj.', 'patch_embed.projection.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
MERGING = re.compile(r'\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)$')
# Norms of dense maps of earlier stages than the last; no other project has them.
DENSE_NORM = re.compile(r'backbone\.norm\d+\.(weight|bias)$')

NECK = ('neck.decoder_', 'neck.mask_token')
QKV_BIAS = re.compile(r'backbone\..*qkv\.bias$')


def detect_layout(state: StateDict) -> str:
    """Tell whose layout a state dict has.

    Args:
        state: Parameters by name.

    Returns:
        A key of :data:`LAYOUTS`.

    Raises:
        ValueError: If it is none of them.
    """
    for layout, name in LAYOUTS.items():
        if name in state:
            return layout
    first = next(iter(state), 'nothing')
    raise UserError(
        f'This is no MixMIM checkpoint: it has none of {", ".join(LAYOUTS.values())}. '
        f'Its first entry is {first}.'
    )


def convert_state_dict(state: StateDict, target: str) -> StateDict:
    """Translate a state dict to another layout, bit by bit the same weights.

    Args:
        state: Parameters of a pretraining or classification model in any
            layout, without anything else.
        target: A key of :data:`LAYOUTS`.

    Returns:
        The parameters, and the buffers that the layout saves, by its names.
        PyTorch's ``_metadata``, which holds our windows' sides, stays where
        nothing is translated.

    Raises:
        ValueError: If the source or the target is unknown, or if an entry is
            missing or unknown; it names the first.
    """
    if target not in LAYOUTS:
        raise UserError(
            f'Unknown layout {target!r}: choose among {", ".join(LAYOUTS)}.'
        )
    source = detect_layout(state)
    ours = {
        name: value
        for name, value in _to_ours(state, source).items()
        if not name.endswith(INDEX)
    }
    _check_complete(ours, source)
    metadata = getattr(state, '_metadata', None) or {}
    if target != 'mmmixmim':
        _check_windows(metadata)
    converted = OrderedDict(_from_ours(ours, target))
    if source == target:
        converted._metadata = metadata
    return converted


def rename_authors(state: StateDict) -> StateDict:
    """Translate the authors' names to ours, whether or not all are there."""
    return _to_ours(state, 'authors')


def from_mmpretrain(name: str, value: Tensor) -> tuple[str, Tensor]:
    """Translate one of mmpretrain's entries.

    Args:
        name: Its name below the backbone, neck or head.
        value: Its value.

    Returns:
        Our name and the value in our order.
    """
    return _rename(name, MMPRETRAIN_NAMES, 1, 0), _merging_to_ours(name, value)


def _to_ours(state: StateDict, source: str) -> StateDict:
    if source == 'authors':
        return {_part_of(name): value for name, value in state.items()}
    if source == 'mmmixmim':
        return dict(state)
    ours = {}
    for name, value in state.items():
        part, _, rest = name.partition('.')
        rest, ours_value = from_mmpretrain(rest, value)
        if f'{part}.{rest}' in ours:
            raise UserError(
                f'This checkpoint has {part}.{rest} twice, by two names; the second is '
                f'{name}.'
            )
        ours[f'{part}.{rest}'] = ours_value
    return ours


def _from_ours(state: StateDict, target: str) -> StateDict:
    if target == 'mmmixmim':
        return state
    for name in state:
        if DENSE_NORM.match(name):
            raise UserError(
                f'{name} belongs to a dense map (out_indices), which the layout '
                f'{target} does not have.'
            )
    state = _with_indices(state)
    if target == 'authors':
        parts = (('backbone.', ''), ('neck.', ''), ('head.fc.', 'head.'))
        return {_rename(name, parts, 0, 1): value for name, value in state.items()}
    theirs = {}
    for name, value in state.items():
        part, _, rest = name.partition('.')
        rest = _rename(rest, MMPRETRAIN_NAMES, 0, 1)
        theirs[f'{part}.{rest}'] = _merging_to_mmpretrain(name, value)
    return theirs


def _rename(name: str, pairs: tuple, old: int, new: int) -> str:
    """Put the pairs' entry ``new`` where ``old`` stands, at the start or inside."""
    for pair in pairs:
        if pair[old].startswith('.'):
            name = name.replace(pair[old], pair[new], 1)
        elif name.startswith(pair[old]):
            name = pair[new] + name.removeprefix(pair[old])
    return name


def _part_of(name: str) -> str:
    """Our name of an authors' parameter: theirs, below the part that owns it."""
    if name.startswith(('decoder_', 'mask_token')):
        return f'neck.{name}'
    if name.startswith('head.'):
        return name.replace('head.', 'head.fc.', 1)
    return f'backbone.{name}'


def _merging_to_ours(name: str, value: Tensor) -> Tensor:
    """Reorder what patch merging concatenates.

    mmpretrain keeps the four neighbours of each channel together, row by row;
    the authors keep the channels of each neighbour together, column by column.
    """
    if not MERGING.search(name) or value.shape[-1] % 4:
        return value
    channels = value.shape[-1] // 4
    return value.unflatten(-1, (channels, 2, 2)).transpose(-1, -3).flatten(-3)


def _merging_to_mmpretrain(name: str, value: Tensor) -> Tensor:
    if not MERGING.search(name) or value.shape[-1] % 4:
        return value
    channels = value.shape[-1] // 4
    return value.unflatten(-1, (2, 2, channels)).transpose(-1, -3).flatten(-3)


def _with_indices(state: StateDict) -> StateDict:
    """Add the index buffers, which the other layouts save beside bias tables."""
    # Imported here, since the models import this package.
    from mmmixmim.models.utils.windows import relative_position_index

    complete = {}
    for name, value in state.items():
        complete[name] = value
        if name.endswith(TABLE):
            side = (math.isqrt(len(value)) + 1) // 2
            if (2 * side - 1) ** 2 != len(value):
                raise UserError(
                    f'{name} has {len(value)} rows, which is no square window: the '
                    'other layouts have square windows only.'
                )
            index = relative_position_index((side, side), (side, side), value.device)
            complete[name.replace(TABLE, INDEX)] = index
    return complete


def _check_windows(metadata: dict[str, dict]) -> None:
    """Refuse windows that are not square, as far as our checkpoint tells them."""
    for name, entry in metadata.items():
        window = entry.get('window')
        if window and window[0] != window[1]:
            raise UserError(
                f'{name} has windows of {window[0]}x{window[1]}: the other layouts '
                'have square windows only.'
            )


def _check_complete(state: StateDict, source: str) -> None:
    """Refuse a model that lacks a parameter, has one too many, or of a wrong shape."""
    expected = _expected_shapes(state)
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    for kind, names in (('lacks', missing), ('has the unknown', unknown)):
        if names:
            raise UserError(
                f"This checkpoint in {source}'s layout {kind} {first_names(names)} (in "
                'our names).'
            )
    for name, shape in expected.items():
        found = tuple(state[name].shape)
        # Positions and rows of tables are as many as images and windows want.
        start = len(shape) - 1 if name.endswith(('pos_embed', TABLE)) else 0
        if len(found) != len(shape) or found[start:] != shape[start:]:
            raise UserError(
                f"This checkpoint in {source}'s layout has {name} (in our names) of "
                f'the shape {found}; with its other weights goes {shape}.'
            )


def first_names(names: list[str], count: int = 3) -> str:
    """Write the first of several names, and how many there are."""
    shown = ', '.join(names[:count])
    return shown if len(names) <= count else f'{shown}, the first of {len(names)}'


def _expected_shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    """Our names and shapes of a whole model with as many stages and blocks."""
    # Imported here, since the models import this package.
    from mmmixmim.models import MixMIMPretrainDecoder, MixMIMTransformer

    def count(pattern: str) -> int:
        found = map(re.compile(pattern).match, state)
        return 1 + max((int(match[1]) for match in found if match), default=0)

    def size(name: str, side: int, default: int) -> int:
        shape = state[name].shape if name in state else ()
        return shape[side] if -len(shape) <= side < len(shape) else default

    stages = count(r'backbone\.layers\.(\d+)\.')
    depths = [count(rf'backbone\.layers\.{i}\.blocks\.(\d+)\.') for i in range(stages)]
    first = 'backbone.layers.{}.blocks.0.'
    channels = size('backbone.patch_embed.proj.weight', 0, 4)
    hidden = size(f'{first.format(0)}mlp.fc1.weight', 0, 4 * channels)
    patch = size('backbone.patch_embed.proj.weight', -1, 4)
    try:
        with torch.device('meta'):
            backbone = MixMIMTransformer(
                dict(
                    embed_dims=channels,
                    depths=depths,
                    num_heads=[
                        size(f'{first.format(i)}attn.{TABLE}', 1, 1)
                        for i in range(stages)
                    ],
                ),
                img_size=patch * 2 ** (stages - 1),
                patch_size=patch,
                in_channels=size('backbone.patch_embed.proj.weight', 1, 3),
                mlp_ratio=hidden / channels,
                qkv_bias=any(QKV_BIAS.match(name) for name in state),
            )
            parts = dict(backbone=backbone)
            if any(name.startswith(NECK) for name in state):
                width = size('neck.mask_token', -1, 512)
                hidden = size('neck.decoder_blocks.0.mlp.fc1.weight', 0, 4 * width)
                parts['neck'] = MixMIMPretrainDecoder(
                    backbone.out_channels[-1],
                    backbone.in_channels,
                    backbone.stride,
                    backbone.img_size,
                    width,
                    count(r'neck\.decoder_blocks\.(\d+)\.'),
                    decoder_num_heads=1,
                    mlp_ratio=hidden / width,
                )
    except ValueError as error:
        raise UserError(f'The weights make no MixMIM model: {error}') from error
    shapes = {
        f'{part}.{name}': tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    for name in filter(DENSE_NORM.match, state):
        stage = int(re.search(r'\d+', name)[0])
        shapes[name] = (channels * 2**stage,)
    if any(name.startswith('head.') for name in state):
        classes = size('head.fc.weight', 0, 1000)
        shapes['head.fc.weight'] = (classes, backbone.out_channels[-1])
        shapes['head.fc.bias'] = (classes,)
    return shapes
