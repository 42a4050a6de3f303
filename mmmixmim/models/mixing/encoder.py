"""What an encoder must offer to be pretrained by MixMIM."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mmmixmim.log import warn
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair, check_positive_int

from .ownership import TokenOwnership


class MixingEncoder(Protocol):
    """A hierarchical encoder that mixes images.

    MixMIM checks the ownership before it calls the encoder. To mix images and to keep
    owners apart, use ``mix``, ``same_owner``, ``split``, ``merge`` and ``pool`` of
    :class:`TokenOwnership`.

    Attributes:
        stride: Side in pixels of the cell behind each token of the last map.
        img_size: Height and width in pixels that the encoder is made for.
        in_channels: Channels of the images.
        out_channels: Channels of each stage's map. The embedding, where images are
            mixed, has as many as the first.

    An encoder with ``out_indices`` must return the last map only. Its index is the last
    stage's, or ``last_index`` where such an attribute exists.
    """

    stride: int
    img_size: tuple[int, int]
    in_channels: int
    out_channels: list[int]

    def __call__(
        self, images: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Tokens of different owners must not exchange information if the ownership is
        ``isolated``.

        Args:
            images: (B, in_channels, H, W), where the stride divides H and W if there is
                an ownership.
            ownership: Who owns each token. None for plain images.

        Returns:
            Maps (B, C, h, w); the last one has one token per cell.
        """


# Norms that take statistics over tokens of several owners.
_SHARED_NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)


def check_encoder_attributes(encoder: nn.Module) -> None:
    """Raise a UserError that names what ``encoder`` lacks to be pretrained.

    A norm with statistics over several owners gives a warning that names it, and so do
    patches that overlap.
    """
    kind = type(encoder).__name__
    ours = f'MixMIM{kind}'  # the stock class of that name, which can mix
    if ours not in MODELS.module_dict:
        ours = 'MixMIMTransformer'
    _warn_of_shared_norms(encoder)
    _warn_of_overlap(encoder)
    missing = [n for n in MixingEncoder.__annotations__ if not hasattr(encoder, n)]
    if missing:
        raise UserError(
            f'{kind} cannot be pretrained by MixMIM: it has no {", ".join(missing)}. '
            f'Use mmmixmim.{ours}, or write an encoder by docs/extending.md.'
        )
    check_positive_int(f'stride of {kind}', encoder.stride)
    check_positive_int(f'in_channels of {kind}', encoder.in_channels)
    as_pair(f'img_size of {kind}', encoder.img_size)
    channels = encoder.out_channels
    if not (
        isinstance(channels, Sequence)
        and channels
        and all(type(each) is int for each in channels)
    ):
        raise UserError(
            f'out_channels of {kind} must list the channels of each stage, got '
            f'{channels!r}.'
        )
    _check_signature(encoder)
    _check_indices(encoder)


def check_maps(
    encoder: nn.Module,
    maps: Sequence[Tensor],
    batch_size: int,
    grid: tuple[int, int],
    pooled: bool = False,
) -> None:
    """Raise a UserError unless maps of an encoder are what MixMIM needs.

    Args:
        encoder: The encoder.
        maps: What it returned.
        batch_size: Number B of images.
        grid: Height and width of the images in cells.
        pooled: Whether they may be (B, C), too.
    """
    name = type(encoder).__name__
    last = maps[-1] if isinstance(maps, (tuple, list)) and maps else None
    if not isinstance(last, Tensor) or last.ndim not in ((2, 4) if pooled else (4,)):
        raise UserError(f'{name} must return a tuple of maps (B, C, h, w).')
    if last.ndim == 4 and tuple(last.shape[2:]) != tuple(grid):
        raise UserError(
            f'The last map of {name} has {tuple(last.shape[2:])} tokens, but the '
            f'images have {tuple(grid)} cells: stride must be the side of a cell, and '
            'maps must be (B, C, h, w).'
        )
    if not hasattr(encoder, 'out_channels'):  # wrapped since the model was built
        return
    wanted = encoder.out_channels
    if tuple(last.shape[:2]) != (batch_size, wanted[-1]):
        raise UserError(
            f'The last map of {batch_size} images is {tuple(last.shape)} from {name}, '
            f'whose out_channels are {wanted}: the last one must be the channels of '
            'the last map.'
        )
    channels = [each.shape[1] for each in maps if isinstance(each, Tensor)]
    if len(channels) == len(wanted) and channels != list(wanted):
        raise UserError(
            f'The maps of {name} have {channels} channels, but its out_channels are '
            f'{wanted}: they must be the same.'
        )


def _check_signature(encoder: nn.Module) -> None:
    signature = inspect.signature(encoder.forward)
    try:
        signature.bind('images')
        signature.bind('images', 'ownership')
    except TypeError as error:
        raise UserError(
            f'{type(encoder).__name__} cannot be pretrained by MixMIM: its forward '
            'must take images, with an ownership and without, as forward(images, '
            'ownership=None).'
        ) from error


def _check_indices(encoder: nn.Module) -> None:
    last = getattr(encoder, 'last_index', len(encoder.out_channels) - 1)
    given = getattr(encoder, 'out_indices', (last,))
    indices = given if isinstance(given, Sequence) else (given,)
    if [i + last + 1 if i < 0 else i for i in indices] != [last]:
        raise UserError(
            'Pretraining uses the last map only: leave out_indices out of the '
            f'backbone, got {given}.'
        )


def _warn_of_shared_norms(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if isinstance(module, _SHARED_NORMS) or (
            isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1
        ):
            warn(
                f'{name} of {type(encoder).__name__} is a {type(module).__name__}, '
                'which takes statistics over the tokens of all mixed images, so they '
                'learn something of each other, unless it stays in eval mode: use '
                'LayerNorm over channels.'
            )
            return


def _warn_of_overlap(encoder: nn.Module) -> None:
    """The first convolution is the patch embedding, as a rule."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            if any(map(operator.gt, module.kernel_size, module.stride)):
                warn(
                    f'{name} of {type(encoder).__name__} has a kernel of '
                    f'{module.kernel_size} at a stride of {module.stride}. If it runs '
                    'before the images are mixed, tokens see pixels of the next cell, '
                    'which may be hidden: run mmmixmim.models.check_encoder.'
                )
            return
