"""The curves of a run, and what can be read off them."""

from __future__ import annotations

import re

import numpy as np

# name -> [(iteration, value), ...], ordered by iteration
History = dict[str, list[tuple[int, float]]]


def all_values(history: History, name: str) -> np.ndarray:
    """Return the values of a scalar, empty if there are none."""
    return np.array([value for _, value in history.get(name, [])], dtype=float)


def finite_values(history: History, name: str) -> np.ndarray:
    """Return the values of a scalar that are neither NaN nor infinite."""
    values = all_values(history, name)
    return values[np.isfinite(values)]


def apart(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Keep points at least ten iterations apart.

    The log averages ten iterations. Closer means share some of them and so hide their
    noise.
    """
    kept = points[:1]
    for point in points[1:]:
        if point[0] - kept[-1][0] >= 10:
            kept.append(point)
    return kept


def _window(values: np.ndarray) -> int:
    return min(len(values), max(3, len(values) // 10))


def _running(values: np.ndarray, window: int) -> np.ndarray:
    """Medians of all windows, (N - window + 1, )."""
    windows = np.lib.stride_tricks.sliding_window_view(values, window)
    return np.median(windows, axis=1)


def _blocks(values: np.ndarray) -> np.ndarray:
    """Medians of blocks of a long run, so that its levels take linear time."""
    block = len(values) // 500
    if block < 2:
        return values
    return np.median(values[: len(values) // block * block].reshape(-1, block), axis=1)


def first_level(values: np.ndarray) -> float:
    """Median of the first tenth."""
    return float(np.median(values[: _window(values)]))


def last_level(values: np.ndarray) -> float:
    """Median of the last tenth."""
    return float(np.median(values[-_window(values) :]))


def lowest_level(values: np.ndarray) -> float:
    """Lowest running median of a tenth."""
    values = _blocks(values)
    return float(_running(values, _window(values)).min())


def lowest_level_noise(values: np.ndarray) -> float:
    """Standard error of the lowest level, a median, by the points up to it.

    Later ones are noisy in themselves if a run diverges. Differences of neighbours tell
    the noise whatever the trend, and their median knows no spike.
    """
    values = _blocks(values)
    window = _window(values)
    end = int(_running(values, window).argmin()) + window
    steps = np.abs(np.diff(values[: max(end, 6)]))  # fewer tell no noise
    deviation = 1.4826 * np.median(steps) / np.sqrt(2)
    return float(1.2533 * deviation / np.sqrt(window))


def largest_rise(values: np.ndarray) -> float:
    """Largest ratio of a median of three points to an earlier one.

    Short windows see a peak in the warm-up that lasts a few points, but no single one.
    """
    levels = _running(values, 3)
    return float((levels / np.minimum.accumulate(levels)).max())


def when(history: History, step: int) -> str:
    """Name an iteration, with its epoch if there are epochs."""
    epochs = [epoch for at, epoch in history.get('epoch', []) if at <= step]
    return f'iteration {step}' + (f' (epoch {epochs[-1]:.0f})' if epochs else '')


def past_warmup(history: History) -> bool:
    """Whether the learning rate falls, never rose, or has been at its peak for a while.

    Also if none was logged.
    """
    rates = all_values(history, 'lr')
    if not len(rates) or rates[-1] < rates.max() or rates[0] == rates.max():
        return True
    return rates.argmax() < len(rates) - max(3, len(rates) // 20)


def measured_mean_loss(history: History, otherwise: float | None) -> float | None:
    """Loss of predicting the mean on held-out images; ``otherwise`` if not measured."""
    measured = finite_values(history, 'reconstruction/mean_loss')
    return float(measured[-1]) if len(measured) else otherwise


def measured_stages(history: History) -> list[int]:
    """Numbers of the stages whose features were measured."""
    found = (re.fullmatch(r'features/\w+_stage(\d+)', name) for name in history)
    return sorted({int(match[1]) for match in found if match})
