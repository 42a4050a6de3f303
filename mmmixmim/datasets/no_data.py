"""Which pixels hold data, and how much they count."""

from __future__ import annotations

import math

import numpy as np

from mmmixmim.validation import UnreadableFileError, UserError

HUGE = 1e30  # counts of molecules or electrons reach 1e25, and train as well


def check_no_data(no_data: float | str | None) -> float | None:
    """Return the value of pixels without data as a number.

    Args:
        no_data: A number, 'nan', or None for images without such pixels.

    Raises:
        UserError: If it is something else.
    """
    if no_data is None:
        return None
    try:
        if isinstance(no_data, (bool, np.bool_)):
            raise TypeError  # float(True) is 1.0
        return float(no_data)
    except (TypeError, ValueError):
        raise UserError(
            f"no_data must be a number, 'nan' or None, got {no_data!r}."
        ) from None


def pixel_weights(
    pixels: np.ndarray, no_data: float | None = None, mask: np.ndarray | None = None
) -> np.ndarray | None:
    """How much each pixel counts: 0 without data.

    Args:
        pixels: (H, W, C). A pixel is without data if one of its channels is.
        no_data: Value without data, or NaN. NaN is never data if this is set.
            Defaults to None.
        mask: (H, W, 1), bool or int, where 0 is no data; or floats, the weights.
            Defaults to None: 1 everywhere.

    Returns:
        float32 (H, W), or None with neither ``no_data`` nor ``mask``.

    Raises:
        UnreadableFileError: If pixels or weights are no finite numbers where they
            should be.
    """
    weights = None
    if mask is not None:
        weights = mask[..., 0]
        if weights.dtype.kind != 'f':
            weights = weights != 0
        weights = weights.astype(np.float32)
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise UnreadableFileError(
                'the weights in its mask are not all finite and at least 0'
            )
    if no_data is not None:
        valid = np.ones(pixels.shape[:2], bool)
        if not math.isnan(no_data):
            # Compare in the type of the pixels: 0.1 is another number in float32.
            kind = pixels.dtype.type if pixels.dtype.kind == 'f' else np.float64
            valid = (pixels != kind(no_data)).all(axis=2)
        if pixels.dtype.kind == 'f':
            valid &= ~np.isnan(pixels).any(axis=2)
        weights = valid.astype(np.float32) * (1 if weights is None else weights)
    odd = odd_value(pixels if weights is None else pixels[weights > 0])
    if odd is not None:
        raise UnreadableFileError(
            f'it has pixels of the value {odd}, which is no measurement; name it by '
            f'no_data="{odd}" (--no-data={odd}), or give a mask'
        )
    return weights


def odd_value(pixels: np.ndarray) -> str | None:
    """A value that is NaN, infinite or so large that it stands for no data, if any.

    GDAL fills float rasters with the lowest number of their type, which overflows in
    whatever is computed from it.
    """
    if pixels.dtype.kind != 'f':
        return None
    largest = min(HUGE, float(np.finfo(pixels.dtype).max))
    odd = ~(np.abs(pixels) <= largest)
    return repr(pixels[odd][0].item()) if odd.any() else None
