"""Time a function, or several side by side."""

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
    """Time functions in turns, so that all see the same state of the machine.

    Each round runs every function once and starts with a different one. An extra
    round warms up and is not counted.

    Args:
        functions: Functions by name.
        rounds: Number of timed rounds.
        device: Device to synchronise before reading the clock.

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


def seconds_of(
    function: Callable[[], object], rounds: int, device: torch.device | str = 'cpu'
) -> list[float]:
    """Time one function, see :func:`interleave`."""
    return interleave(dict(function=function), rounds, device)['function']


def pairwise_ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Compute the ratio of two timings, round by round.

    Args:
        above: Seconds of each round, the numerators.
        below: Seconds of each round, the denominators.

    Returns:
        The ``median`` ratio and its quartiles ``low`` and ``high``.
    """
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    if len(ratios) == 1:
        return dict(low=ratios[0], median=ratios[0], high=ratios[0])
    low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
    return dict(low=low, median=median, high=high)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
