"""Fit weights of the patch embedding to images of other channels."""

from __future__ import annotations

from torch import Tensor

from mmmixmim.log import warn
from mmmixmim.validation import UserError

from .formats import StateDict

MODES = ('mean', 'repeat')


def check_mode(mode: str) -> None:
    """Raise a UserError unless it is one of :data:`MODES`."""
    if mode not in MODES:
        raise UserError(
            f'in_channels must be one of {", ".join(map(repr, MODES))} or None, got '
            f'{mode!r}.'
        )


def fit_in_channels(weight: Tensor, channels: int, mode: str) -> Tensor:
    """Make the weights of a patch embedding for another number of channels.

    From C channels to D, scaled by C / D as timm does (``adapt_input_conv``). So the
    mean response stays if all channels show the same: with 'repeat' only if D is a
    multiple of C, else some channels count more often than others.

    Args:
        weight: Weights of a convolution (dim, C, height, width).
        channels: Number D of channels.
        mode: 'mean': each channel gets the mean over the C channels. 'repeat': channel
            i gets those of channel i modulo C.

    Returns:
        (dim, D, height, width).

    Raises:
        UserError: If the mode is unknown.
    """
    check_mode(mode)
    own = weight.shape[1]
    if own == channels:
        return weight
    if mode == 'mean':
        fitted = weight.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    else:
        fitted = weight[:, [i % own for i in range(channels)]]
    return fitted * (own / channels)


def fit_embedding(weights: StateDict, own: StateDict, mode: str) -> None:
    """Fit the patch embedding in a state dict to a backbone, in place.

    Args:
        weights: What is being loaded.
        own: State dict of the backbone. Its first convolution is the patch embedding.
        mode: See :func:`fit_in_channels`.

    Raises:
        UserError: If there is no such convolution to load.
    """
    name = next((name for name, value in own.items() if value.ndim == 4), None)
    given = weights.get(name)
    if given is None or given.ndim != 4:
        raise UserError(
            f'it has no patch embedding {name} that in_channels={mode!r} could fit.'
        )
    before, after = given.shape[1], own[name].shape[1]
    weights[name] = fit_in_channels(given, after, mode)
    if before != after:
        warn(
            f'{name} was fitted from {before} to {after} channels by in_channels='
            f'{mode!r}.'
        )
