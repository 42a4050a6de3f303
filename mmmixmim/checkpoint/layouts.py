"""Translate state dicts between the authors', mmpretrain's and our layout.

A layout is how a project names and orders the parameters of the same model,
whole with its decoder (pretraining) or its classifier (fine-tuning).
"""

from __future__ import annotations

import math
import re

from torch import Tensor

from mmmixmim.models.utils.windows import relative_position_index

StateDict = dict[str, Tensor]

INDEX = 'relative_position_index'
TABLE = 'relative_position_bias_table'

# A name of every layout's own, and our names with what mmpretrain has for them.
LAYOUTS = {
    'authors': 'patch_embed.proj.weight',
    'mmpretrain': 'backbone.patch_embed.projection.weight',
    'mmmixmim': 'backbone.patch_embed.proj.weight',
}
MMPRETRAIN_NAMES = (
    ('neck.decoder_norm.', 'neck.ln1.'),  # before the norms of blocks
    ('backbone.patch_embed.proj.', 'backbone.patch_embed.projection.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
MERGING = re.compile(r'\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)$')

LINEAR = ('weight', 'bias')
BLOCK = [
    f'{layer}.{name}'
    for layer in ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2')
    for name in LINEAR
]


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
    raise ValueError(
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

    Raises:
        ValueError: If the source or the target is unknown, or if an entry is
            missing or unknown; it names the first.
    """
    if target not in LAYOUTS:
        raise ValueError(
            f'Unknown layout {target!r}: choose among {", ".join(LAYOUTS)}.'
        )
    source = detect_layout(state)
    ours = {
        name: value
        for name, value in _to_ours(state, source).items()
        if not name.endswith(INDEX)
    }
    _check_complete(ours, source)
    return _from_ours(ours, target)


def _to_ours(state: StateDict, source: str) -> StateDict:
    if source == 'authors':
        return {_part_of(name): value for name, value in state.items()}
    if source == 'mmpretrain':
        return {
            _rename(name, [pair[::-1] for pair in MMPRETRAIN_NAMES]): _merging_to_ours(
                name, value
            )
            for name, value in state.items()
        }
    return dict(state)


def _from_ours(state: StateDict, target: str) -> StateDict:
    if target == 'mmmixmim':
        return state
    state = _with_indices(state)
    if target == 'authors':
        parts = (('backbone.', ''), ('neck.', ''), ('head.fc.', 'head.'))
        return {_rename(name, parts): value for name, value in state.items()}
    return {
        _rename(name, MMPRETRAIN_NAMES): _merging_to_mmpretrain(name, value)
        for name, value in state.items()
    }


def _rename(name: str, pairs) -> str:
    """Replace the first pattern of each pair that stands in the name."""
    for old, new in pairs:
        name = name.replace(old, new, 1)
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
    if not MERGING.search(name):
        return value
    channels = value.shape[-1] // 4
    return value.unflatten(-1, (channels, 2, 2)).transpose(-1, -3).flatten(-3)


def _merging_to_mmpretrain(name: str, value: Tensor) -> Tensor:
    if not MERGING.search(name):
        return value
    channels = value.shape[-1] // 4
    return value.unflatten(-1, (2, 2, channels)).transpose(-1, -3).flatten(-3)


def _with_indices(state: StateDict) -> StateDict:
    """Add the index buffers, which the other layouts save beside bias tables."""
    complete = {}
    for name, value in state.items():
        complete[name] = value
        if name.endswith(TABLE):
            side = (math.isqrt(len(value)) + 1) // 2
            if (2 * side - 1) ** 2 != len(value):
                raise ValueError(
                    f'{name} has {len(value)} rows, which is no square window: the '
                    'other layouts have square windows only.'
                )
            index = relative_position_index((side, side), (side, side), value.device)
            complete[name.replace(TABLE, INDEX)] = index
    return complete


def _check_complete(state: StateDict, source: str) -> None:
    """Refuse a model that lacks a parameter or has one too many."""
    expected = _expected_names(state)
    missing = [name for name in expected if name not in state]
    if not any(name.endswith('qkv.bias') for name in state):
        missing = [name for name in missing if not name.endswith('qkv.bias')]
    unknown = [name for name in state if name not in expected]
    for kind, names in (('lacks', missing), ('has the unknown entry', unknown)):
        if names:
            raise ValueError(
                f"This checkpoint in {source}'s layout {kind} {names[0]} (in our "
                f'names), the first of {len(names)}.'
            )


def _expected_names(state: StateDict) -> dict[str, None]:
    """Our names of a whole model with as many stages and blocks as there are."""
    found = map(re.compile(r'backbone\.layers\.(\d+)\.blocks\.(\d+)\.').match, state)
    blocks = [(int(match[1]), int(match[2])) for match in found if match]
    names = ['absolute_pos_embed']
    for layer in ('patch_embed.proj', 'patch_embed.norm', 'norm'):
        names += [f'{layer}.{name}' for name in LINEAR]
    stages = 1 + max((stage for stage, _ in blocks), default=0)
    for i in range(stages):
        depth = 1 + max((block for stage, block in blocks if stage == i), default=0)
        for j in range(depth):
            prefix = f'layers.{i}.blocks.{j}'
            names += [f'{prefix}.{name}' for name in (*BLOCK, f'attn.{TABLE}')]
        if i < stages - 1:
            merging = ('norm.weight', 'norm.bias', 'reduction.weight')
            names += [f'layers.{i}.downsample.{name}' for name in merging]
    names = [f'backbone.{name}' for name in names]

    if any(name.startswith('neck.') for name in state):
        decoder = re.compile(r'neck\.decoder_blocks\.(\d+)\.')
        found = [int(match[1]) for match in map(decoder.match, state) if match]
        neck = ['mask_token', 'decoder_pos_embed']
        for j in range(1 + max(found, default=0)):
            neck += [f'decoder_blocks.{j}.{name}' for name in BLOCK]
        for layer in ('decoder_embed', 'decoder_norm', 'decoder_pred'):
            neck += [f'{layer}.{name}' for name in LINEAR]
        names += [f'neck.{name}' for name in neck]
    if any(name.startswith('head.') for name in state):
        names += [f'head.fc.{name}' for name in LINEAR]
    return dict.fromkeys(names)
