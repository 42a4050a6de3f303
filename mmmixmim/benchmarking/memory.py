"""Peak memory of a workload, beyond the weights and gradients of its model."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path

import torch

from .workloads import Workload


def peak_memory(workload: Workload) -> int:
    """Measure one run of a workload.

    On a GPU this is what PyTorch's allocator handed out. On a CPU it is the
    resident memory of this process, which should run nothing else before.

    Args:
        workload: What to run.

    Returns:
        Bytes at the peak, over what the model with its gradients takes.

    Raises:
        OSError: On a CPU, if the system is not Linux.
    """
    workload()  # loads what is loaded lazily, and makes the gradients
    device = torch.device(workload.setting.device)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        workload(keep_grads=True)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    before = _resident('VmRSS')
    Path('/proc/self/clear_refs').write_text('5')  # restarts VmHWM
    workload(keep_grads=True)
    return _resident('VmHWM') - before


def _resident(key: str) -> int:
    if key == 'VmRSS':
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    status = Path('/proc/self/status').read_text()
    return int(re.search(rf'{key}:\s+(\d+) kB', status)[1]) * 1024
