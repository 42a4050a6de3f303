"""Convert whole models between checkpoint formats, and check that nothing is lost."""

from __future__ import annotations

import re
from collections import OrderedDict

import torch

from mmmixmim.checkpoint.formats import (
    DECODER,
    FORMATS,
    NATIVE,
    StateDict,
    detect_format,
    from_native,
    to_native,
)
from mmmixmim.checkpoint.names import RESIZED, TABLE
from mmmixmim.models import MixMIMPretrainDecoder, MixMIMTransformer
from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError

BACKBONE_NORM = re.compile(r'backbone\.norm(\d+)\.(weight|bias)$')
QKV_BIAS = re.compile(r'backbone\..*qkv\.bias$')
IN_DECODER = tuple(f'neck.{start}' for start in DECODER)


def convert_state_dict(state: StateDict, target: str) -> StateDict:
    """Convert a state dict to another format, bit by bit the same weights.

    Args:
        state: Parameters of a pretraining or classification model in any format, and
            nothing else.
        target: A key of :data:`~mmmixmim.checkpoint.FORMATS`.

    Returns:
        The parameters, and the buffers that the format saves, by its names. PyTorch's
        ``_metadata``, which holds the sides of our windows, is kept where the format
        stays the same.

    Raises:
        UserError: If the source or the target is unknown, or if an entry is missing,
            unknown, or of a wrong shape; it names the first.
    """
    if target not in FORMATS:
        raise UserError(
            f'Unknown format {target!r}: choose among {", ".join(FORMATS)}.'
        )
    source = detect_format(state)
    native = to_native(state, source)
    _check_complete(native, source)
    metadata = getattr(state, '_metadata', None) or {}
    if target != NATIVE:
        _check_windows(metadata)
    converted = OrderedDict(from_native(native, target))
    if source == target:
        converted._metadata = metadata
    return converted


def _check_windows(metadata: dict[str, dict]) -> None:
    """Raise for windows that are not square, as far as our checkpoint tells them."""
    for name, entry in metadata.items():
        window = entry.get('window')
        if window and window[0] != window[1]:
            raise UserError(
                f'{name} has windows of {window[0]}x{window[1]}: only the format '
                f'{NATIVE} has windows that are not square.'
            )


def _check_complete(state: StateDict, source: str) -> None:
    """Raise for a model with missing or unknown parameters, or of wrong shapes."""
    if not any(name.startswith('backbone.layers.') for name in state):
        raise UserError(
            'This checkpoint has another encoder than MixMIMTransformer, the only one '
            'that comes in several formats. Of the others, tools/convert_checkpoint.py '
            'exports Swin and ConvNeXt by --to timm.'
        )
    expected = _expected_shapes(state)
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    for kind, names in (('lacks', missing), ('has the unknown', unknown)):
        if names:
            raise UserError(
                f'This checkpoint in the format {source} {kind} '
                f'{summarise_keys(names)} (in our names).'
            )
    for name, shape in expected.items():
        found = tuple(state[name].shape)
        start = len(shape) - 1 if name.endswith(RESIZED) else 0
        if len(found) != len(shape) or found[start:] != shape[start:]:
            raise UserError(
                f'This checkpoint in the format {source} has {name} (in our names) of '
                f'shape {found}; its other weights need {shape}.'
            )


def _expected_shapes(state: StateDict) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a whole model with as many stages and blocks."""

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
    heads = [size(f'{first.format(i)}attn.{TABLE}', 1, 1) for i in range(stages)]
    try:
        with torch.device('meta'):
            backbone = MixMIMTransformer(
                dict(embed_dims=channels, depths=depths, num_heads=heads),
                img_size=patch * 2 ** (stages - 1),
                patch_size=patch,
                in_channels=size('backbone.patch_embed.proj.weight', 1, 3),
                mlp_ratio=hidden / channels,
                qkv_bias=any(QKV_BIAS.match(name) for name in state),
            )
            parts = dict(backbone=backbone)
            if any(name.startswith(IN_DECODER) for name in state):
                width = size('neck.mask_token', -1, 512)
                hidden = size('neck.decoder_blocks.0.mlp.fc1.weight', 0, 4 * width)
                parts['neck'] = MixMIMPretrainDecoder(
                    encoder_channels=backbone.out_channels[-1],
                    in_channels=backbone.in_channels,
                    stride=backbone.stride,
                    img_size=backbone.img_size,
                    decoder_embed_dims=width,
                    decoder_depth=count(r'neck\.decoder_blocks\.(\d+)\.'),
                    decoder_num_heads=1,
                    mlp_ratio=hidden / width,
                )
    except UserError as error:
        raise UserError(f'The weights make no MixMIM model: {error}') from error
    shapes = {
        f'{part}.{name}': tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    for match in filter(None, map(BACKBONE_NORM.match, state)):
        shapes[match[0]] = (channels * 2 ** int(match[1]),)
    if any(name.startswith('head.') for name in state):
        classes = size('head.fc.weight', 0, 1000)
        shapes['head.fc.weight'] = (classes, backbone.out_channels[-1])
        shapes['head.fc.bias'] = (classes,)
    return shapes
