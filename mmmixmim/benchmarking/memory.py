"""Peak memory of a step, beyond the weights and gradients of its model."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(step: Callable[[], object], device: torch.device | str) -> int:
    """Measure one run of a step.

    On a GPU this is what PyTorch's allocator handed out. On a CPU it is the
    resident memory of this process, which should run nothing else before.

    Args:
        step: What to run, at first once ahead. It should add to the gradients that
            are there instead of freeing them.
        device: Where it runs.

    Returns:
        Bytes at the peak, over what the model with its gradients takes.

    Raises:
        OSError: On a CPU, if the system is not Linux.
    """
    step()  # loads what is loaded lazily, and makes the gradients
    device = torch.device(device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    before = _resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # restarts VmHWM
    step()
    return _resident('VmHWM') - before


def _resident(key: str) -> int:
    if key == 'VmRSS':
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{key}:\s+(\d+) kB', status)[1]) * 1024
