"""Load checkpoints of any format into a model."""

from __future__ import annotations

import math
import re
from pathlib import Path

from mmengine.model import PretrainedInit
from torch import nn

from mmmixmim.geometry import (
    load_bias_table,
    load_position_embedding,
    resize_position_embedding,
)
from mmmixmim.log import warn
from mmmixmim.text import summarise_keys
from mmmixmim.validation import UserError, as_pair

from .channels import check_mode, fit_embedding
from .encoder import (
    ENCODER,
    find_encoders,
    is_native,
    split_encoder,
    stock_weights,
)
from .files import read_weights
from .formats import (
    FORMATS,
    NATIVE,
    StateDict,
    detect_entries,
    detect_format,
    entries_below,
    to_native,
)
from .names import DERIVED, MAP_NORM, RESIZED, TABLE

PRETRAINED = (
    'Pretrained',
    'mmengine.Pretrained',
    PretrainedInit,
    # How MMEngine saves a config that imports the class.
    'mmengine.model.PretrainedInit',
    'mmengine.model.weight_init.PretrainedInit',
)
# Norms of any stage's map, with or without a number.
NORM = re.compile(r'norm\d*\.(weight|bias)$')
STAGE = re.compile(r'(?:layers|stages)\.(\d+)\.')
_OTHER_CHANNELS = (
    " For images of other channels, load with in_channels='mean' (init_cfg of the "
    'backbone).'
)


def load_encoder(
    backbone: nn.Module,
    path: str | Path,
    prefix: str | None = None,
    in_channels: str | None = None,
) -> None:
    """Load a backbone from a checkpoint, completely or not at all.

    The weights of a ``MixMIMTransformer`` may be in any format. Those of any other
    encoder have the names of its stock class. Bias tables and position embeddings are
    resized if need be. Norms of other stages' maps may be new, then they keep their
    values, or unused. A warning lists both, and what else the file holds.

    Args:
        backbone: An encoder.
        path: Checkpoint file or address. No code in it is run.
        prefix: See :func:`.split_encoder`.
        in_channels: How to fit the patch embedding if the file's encoder is made for
            images of another number of channels: 'mean' or 'repeat', see
            :func:`fit_in_channels`. Defaults to None: raise.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it holds no encoder, or one that does not fit.
    """
    if in_channels is not None:
        check_mode(in_channels)
    state = read_weights(path)
    own = backbone.state_dict()
    try:
        weights, others = _find_weights(backbone, own, state, prefix)
        if in_channels is not None:
            fit_embedding(weights, own, in_channels)
        new, unused = _check_fits(own, weights)
        _load_or_restore(backbone, weights)
    except (RuntimeError, UserError) as error:
        raise UserError(
            f'{path} does not fit this {type(backbone).__name__}: {_one_line(error)}'
        ) from error
    for names, what in (
        (new, 'norms of other maps, not in the file, new'),
        (unused, 'norms of other maps, in the file, not used'),
        (others, 'only the encoder is loaded, not'),
    ):
        if names:
            warn(f'{path}: {what}: {", ".join(names)}.')


def _find_weights(
    backbone: nn.Module, own: StateDict, state: StateDict, prefix: str | None
) -> tuple[StateDict, list[str]]:
    """The weights of an encoder by our names, and what else there is."""
    if is_native(own):
        return split_encoder(state, prefix)
    first, _ = next(backbone.named_parameters())
    weights, others = stock_weights(state, first, prefix)
    return fit_stock(backbone, own, weights), others


def _check_fits(own: StateDict, weights: StateDict) -> tuple[list[str], list[str]]:
    """Raise unless all names agree, but for norms of other stages' maps.

    Returns:
        Those that are new, and those that are not used.
    """
    new = [name for name in own if name not in weights]
    unused = [name for name in weights if name not in own]
    stages = [int(found[1]) for found in map(STAGE.match, own) if found]
    last = f'norm{max(stages, default=0)}.'
    hint = 'Build the backbone with the arguments that it was trained with.'
    if is_native(own):
        hint = 'Set arch and qkv_bias to those that it was trained with.'
        if not is_native(weights):
            hint = (
                'It holds another encoder: give the backbone the type that it was '
                'trained with.'
            )
    _check_names(
        [n for n in new if not MAP_NORM.match(n) or n.startswith(last)],
        [name for name in unused if not NORM.match(name)],
        hint,
    )
    return new, unused


def load_whole(model: nn.Module, path: str | Path) -> None:
    """Load every parameter of a model from a checkpoint of any format.

    Bias tables and position embeddings are resized if need be.

    Args:
        model: A pretraining or classification model.
        path: Checkpoint file or address. No code in it is run.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is not a MixMIM checkpoint, or does not fit the model.
    """
    weights = read_weights(path)
    try:
        own = model.state_dict()
        if is_native(entries_below('backbone.', own)):
            source = detect_format(weights)
            if source != NATIVE:  # ours may have necks that no other format has
                weights = to_native(weights, source)
        else:
            weights = fit_stock(model.backbone, own, weights)
        result = model.load_state_dict(weights, strict=False)
        _check_names(
            [n for n in result.missing_keys if not n.endswith(DERIVED)],
            result.unexpected_keys,
            'Use the config that it was trained with.',
        )
    except (RuntimeError, UserError) as error:
        raise UserError(
            f'{path} does not fit this {type(model).__name__}: {_one_line(error)}'
        ) from error


def fit_stock(encoder: nn.Module, own: StateDict, weights: StateDict) -> StateDict:
    """Resize what depends on the image size, and replace buffers that follow from it.

    mmpretrain's Swin resizes its tables by a function that SciPy 1.14 removed. HiViT
    and PVT don't resize position embeddings when they load.

    Args:
        encoder: The encoder. Its maps have the proportions of its ``img_size``, or are
            square if it has none. Those of the weights are square, or else have the
            same proportions.
        own: State dict of it, or of its model.
        weights: What is being loaded.
    """
    height, width = as_pair('img_size', getattr(encoder, 'img_size', 1))
    fitted = weights | {n: value for n, value in own.items() if n.endswith(DERIVED)}
    for name, value in own.items():
        if name.endswith(TABLE):
            side = (math.isqrt(len(value)) + 1) // 2
            load_bias_table(fitted, name, (side, side), None)
        elif name.endswith('pos_embed') and name in weights:
            side = math.isqrt(weights[name].shape[1])
            before = (side, side)
            if side**2 != weights[name].shape[1]:
                before = _grid(weights[name].shape[1], height / width)
            after = _grid(value.shape[1], height / width)
            if before and after:
                fitted[name] = resize_position_embedding(weights[name], before, after)
    return fitted


def _grid(positions: int, proportions: float) -> tuple[int, int] | None:
    """Rows and columns of a map; None if it has other tokens, such as a class token."""
    rows = round(math.sqrt(positions * proportions))
    return (rows, positions // rows) if rows and positions % rows == 0 else None


def _check_names(missing: list[str], unknown: list[str], hint: str) -> None:
    for kind, names in (('it lacks', missing), ('it has the unknown', unknown)):
        if names:
            raise UserError(f'{kind} {summarise_keys(names)}. {hint}')


def _load_or_restore(backbone: nn.Module, weights: StateDict) -> None:
    """Load weights. PyTorch keeps those that fit even if others don't; undo that."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    try:
        backbone.load_state_dict(weights, strict=False)
    except (RuntimeError, UserError):
        backbone.load_state_dict(before, strict=False)
        raise


def _one_line(error: Exception) -> str:
    """PyTorch writes a heading, then a line for each problem."""
    lines = [line.strip() for line in str(error).splitlines()]
    if len(lines) == 1:
        return lines[0]
    return f'{lines[1]} The first of {len(lines) - 1} problems.'


def split_init_cfg(
    init_cfg: dict | list[dict] | None,
) -> tuple[list[dict], list[dict]]:
    """Split an ``init_cfg`` into its entries of type Pretrained and the others.

    mmdet's configs of PVT leave the type out.
    """
    entries = init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]
    pretrained = [
        each
        for each in entries
        if each.get('type', 'Pretrained' if 'checkpoint' in each else None)
        in PRETRAINED
    ]
    return pretrained, [each for each in entries if each and each not in pretrained]


def load_pretrained(backbone: nn.Module, entries: list[dict]) -> None:
    """Load what entries of type Pretrained name.

    Raises:
        UserError: If an entry names no checkpoint, or it does not fit.
    """
    for entry in entries:
        if not entry.get('checkpoint'):
            raise UserError(
                'The backbone starts from a pretrained checkpoint and none is given: '
                'set model.backbone.init_cfg.checkpoint=FILE by --cfg-options, or '
                'model.backbone.init_cfg=None to start from scratch or from load_from.'
            )
        load_encoder(
            backbone,
            entry['checkpoint'],
            entry.get('prefix'),
            entry.get('in_channels'),
        )


def adapt_part(state: StateDict, prefix: str) -> None:
    """Translate the entries of one part to our format, in place.

    Args:
        state: What is being loaded.
        prefix: Prefix of the part.
    """
    entries = entries_below(prefix, state)
    source = detect_entries(entries)
    if source in (None, NATIVE):
        return
    for name in entries:
        del state[prefix + name]
    native = FORMATS[source].to_native(entries)
    state.update({prefix + name: value for name, value in native.items()})


def adapt_encoder(backbone: nn.Module, state: StateDict, prefix: str) -> None:
    """Fit what is being loaded to a backbone, in place.

    Drops what is not the encoder's where a bare backbone gets a whole model, translates
    to our format, and resizes the position embedding.

    Args:
        backbone: A ``MixMIMTransformer``.
        state: What is being loaded.
        prefix: Prefix of the backbone.

    Raises:
        UserError: If the weights are of another arch.
    """
    if not prefix and find_encoders(state):
        weights, dropped = split_encoder(state)
        if dropped:
            warn(f'Only the encoder is loaded, not: {", ".join(dropped)}.')
        metadata = getattr(state, '_metadata', None)
        if metadata is not None:
            metadata.update(weights._metadata)
        state.clear()
        state.update(weights)
    adapt_part(state, prefix)
    _check_arch(backbone, state, prefix)
    load_position_embedding(state, f'{prefix}absolute_pos_embed', backbone.map_size)


def _check_arch(backbone: nn.Module, state: StateDict, prefix: str) -> None:
    """Raise for weights of another arch, which no resizing would fit."""
    own = dict(backbone.named_parameters())
    if prefix + ENCODER in state:
        block = re.compile(r'layers\.\d+\.blocks\.\d+(?=\.)')
        theirs, ours = (
            {match[0] for match in map(block.match, names) if match}
            for names in (entries_below(prefix, state), own)
        )
        if theirs != ours:
            verb = 'lack' if ours - theirs else 'have the unknown'
            raise UserError(
                f'the weights to load are of another arch: they {verb} '
                f'{prefix}{min(ours - theirs or theirs - ours)}.'
            )
    for name, parameter in own.items():
        given = state.get(prefix + name)
        start = parameter.ndim - 1 if name.endswith(RESIZED) else 0
        if given is not None and given.shape[start:] != parameter.shape[start:]:
            channels = given.shape[1:2] != parameter.shape[1:2]
            raise UserError(
                'the weights to load are of another arch, patch_size or in_channels: '
                f'{prefix}{name} has the shape {tuple(given.shape)} there and '
                f'{tuple(parameter.shape)} in this model.'
                + (_OTHER_CHANNELS if name == ENCODER and channels else '')
            )
