"""GPU utilisation of pretraining."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch.profiler import ProfilerActivity, profile

from mmmixmim import ops

from .roofline import BANDWIDTH_SHARE, PEAK_SHARE, Card
from .timing import seconds_of
from .workloads import Workload

ATTENTION = ('attention', 'flash', 'fmha', 'sdpa', 'softmax')


@torch.no_grad()
def matrix_rate(
    device: torch.device | str, dtype: torch.dtype, size: int = 8192
) -> float:
    """Measure the median speed of a large GEMM, by the library of our linear layers.

    Args:
        device: Device to measure.
        dtype: dtype of the matrices.
        size: Side of the square matrices.

    Returns:
        FLOP/s, with two FLOPs per multiply-accumulate.
    """
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = seconds_of(lambda: ops.linear(a, b), 20, device)
    return 2 * size**3 / statistics.median(seconds)


def cpu_card() -> Card:
    """Describe this CPU in float32 by rates that are measured here.

    The roofline takes shares of a card's peaks, so the peaks are set such that the
    shares are what was measured: for a GEMM of 1024x1024, and for copying 256 MiB.
    """
    source = torch.zeros(2**26)
    copy = partial(torch.empty_like(source).copy_, source)
    seconds = statistics.median(seconds_of(copy, 10))
    rate = matrix_rate('cpu', torch.float32, 1024) / PEAK_SHARE
    bandwidth = 2 * source.nbytes / seconds / BANDWIDTH_SHARE
    return Card('this CPU', rate, rate, bandwidth, math.inf, math.inf)


def largest_batch(fits: Callable[[int], bool], limit: int = 4096) -> int:
    """Search for the largest batch that fits into memory, to within an eighth.

    Args:
        fits: Whether a batch of the given size fits.
        limit: Largest size to try.

    Returns:
        The batch size, or 0 if not even one image fits.
    """
    low = 0
    high = 1
    while high <= limit and fits(high):
        low, high = high, 2 * high
    if high > limit:
        return low
    step = low // 2
    while step >= max(1, low // 8):
        if fits(low + step):
            low += step
        step //= 2
    return low


def training_step(workload: Workload) -> Callable[[], None]:
    """Make a training step of a workload with AdamW."""
    cuda = torch.device(workload.setting.device).type == 'cuda'
    optimizer = torch.optim.AdamW(workload.model.parameters(), fused=cuda)

    def step() -> None:
        workload()
        optimizer.step()

    return step


def attention_kernels(run: Callable[[], object]) -> list[str]:
    """Profile a call and list the names of its attention kernels.

    Kernels fused by ``torch.compile`` are listed too: their names contain the
    operations.
    """
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as recorded:
        run()
    names = {event.key for event in recorded.key_averages()}
    return sorted(
        name
        for name in names
        if any(word in name.lower() for word in ATTENTION) and 'autograd' not in name
    )
