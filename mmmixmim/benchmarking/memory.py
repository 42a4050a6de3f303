"""Peak memory of a step, excluding weights and gradients."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def peak_memory(step: Callable[[], object], device: torch.device | str) -> int:
    """Measure the peak memory of one step.

    On a GPU, this is memory allocated by PyTorch. On a CPU, it is resident memory of
    the process: use a fresh process for each measurement.

    Args:
        step: Function to measure, called twice. It should accumulate gradients, not
            free them.
        device: Device it runs on.

    Returns:
        Peak memory in bytes, beyond weights and gradients.

    Raises:
        OSError: On a CPU, unless the system is Linux.
    """
    step()  # warms up and allocates the gradients
    device = torch.device(device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
    step()
    return _resident('VmHWM') - before


def give_tensors_pages() -> None:
    """Give each tensor of 64 KiB or more pages of its own, for the rest of the process.

    By default glibc's ``malloc`` keeps freed memory for later requests, so a process
    holds more than its tensors. Call it before the process allocates any: what is free
    already is reused. Other C libraries stay as they are.
    """
    _set_malloc(M_MMAP_THRESHOLD, 2**16)


def reuse_freed_memory() -> None:
    """Let ``malloc`` keep freed memory again, for measurements of time."""
    _set_malloc(M_MMAP_THRESHOLD, 2**25)
    _set_malloc(M_TRIM_THRESHOLD, 2**26)


def _set_malloc(option: int, size: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        mallopt(option, size)


def _resident(key: str) -> int:
    """Read the current ('VmRSS') or peak ('VmHWM') resident memory in bytes."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{key}:\s+(\d+) kB', status)[1]) * 1024
