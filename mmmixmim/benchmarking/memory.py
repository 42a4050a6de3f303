"""Peak memory of a step, excluding weights and gradients."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch


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
    before = _resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM
    step()
    return _resident('VmHWM') - before


def _resident(key: str) -> int:
    """Read the current ('VmRSS') or peak ('VmHWM') resident memory in bytes."""
    if key == 'VmRSS':
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{key}:\s+(\d+) kB', status)[1]) * 1024
