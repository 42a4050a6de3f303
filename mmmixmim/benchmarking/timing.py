"""Times of several functions, taken side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleave(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device | str = 'cpu',
) -> dict[str, list[float]]:
    """Time functions in turns, so that all meet the same state of the machine.

    Each round runs every function once, beginning with another one than the
    round before. A round ahead of them warms up and is not counted.

    Args:
        functions: What to time, by name.
        rounds: How often.
        device: The device that is waited for before a time is taken.

    Returns:
        Seconds of each round, by name.
    """
    device = torch.device(device)
    names = list(functions)
    seconds = {name: [] for name in names}
    for i in range(rounds + 1):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            _wait(device)
            start = time.perf_counter()
            functions[name]()
            _wait(device)
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def pairwise_ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Ratio of times that were taken in the same rounds.

    Args:
        above: Seconds of each round.
        below: Those that they are divided by.

    Returns:
        ``median``, and the quartiles ``low`` and ``high``.
    """
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    if len(ratios) == 1:
        return dict(low=ratios[0], median=ratios[0], high=ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return dict(low=low, median=median, high=high)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
