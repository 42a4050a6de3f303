"""GEMMs of float32 in oneDNN, where the library that PyTorch takes is slower.

For float32 PyTorch calls its BLAS. On x86 that is MKL, which is slow on CPUs with
AVX-512 that Intel did not make. There PyTorch calls oneDNN instead if that is allowed
to round to bfloat16. oneDNN rounds only with units for it, such as AMX. On CPUs without
it keeps float32, so the permission changes the library alone.

The rule looks at the CPU and times nothing: the libraries round differently in the last
bit, and runs must repeat bit for bit. See docs/performance.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from .switch import runs_on_cpu


def _has_intel_mkl() -> bool:
    """Whether the BLAS is MKL on an Intel CPU."""
    # Not every version of PyTorch tells the name.
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    on_intel = 'Intel' in capabilities.get('cpu_name', '')
    return on_intel and torch.backends.mkl.is_available()


INTEL_MKL = _has_intel_mkl()

_lock = threading.Lock()
_inside = 0  # how many are in gemms()
_before = ''


@contextmanager
def gemms(tensor: Tensor) -> Iterator[None]:
    """Let oneDNN multiply float32 matrices where it is faster than the BLAS, and exact.

    PyTorch's setting for it concerns all threads of the process for that time, up to
    PyTorch 2.8 also their GEMMs on a GPU, which may then round to TF32.

    Args:
        tensor: One on the device that multiplies. Nothing changes on a GPU.
    """
    global _inside, _before
    enabled = runs_on_cpu(tensor) and torch.backends.mkldnn.enabled
    if not enabled or INTEL_MKL or not _is_checked_exact():
        yield
        return
    # The first thread to enter and the last to leave change the setting.
    with _lock:
        if not _inside:
            _before = _set_rounding(None)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _set_rounding(_before)


def _is_checked_exact() -> bool:
    """:func:`_is_exact`, which changes the setting too, in one thread at a time."""
    with _lock:
        return _is_exact()


@cache
def _is_exact() -> bool:
    """Whether this CPU's oneDNN keeps float32 where it may round."""
    if getattr(torch.cpu, '_is_amx_tile_supported', bool)():
        return False
    # Tried as well, since later versions may round elsewhere. Other modes would count
    # these FLOPs, or turn the matrices into fake ones.
    with _disable_current_modes(), torch.autocast('cpu', enabled=False):
        unit = torch.eye(64, dtype=torch.float32, device='cpu').repeat(2, 1, 1)
        matrix = unit + 2**-12  # more digits than bfloat16 and TF32 have
        before = _set_rounding(None)
        try:
            return torch.equal(torch.bmm(matrix, unit), matrix)
        finally:
            _set_rounding(before)


def _set_rounding(precision: str | None) -> str:
    """Set how GEMMs of float32 may round, by default to bfloat16; return the old."""
    if hasattr(torch.backends.mkldnn, 'matmul'):
        setting = torch.backends.mkldnn.matmul
        before, setting.fp32_precision = setting.fp32_precision, precision or 'bf16'
        return before
    before = torch.get_float32_matmul_precision()  # PyTorch up to 2.8
    torch.set_float32_matmul_precision(precision or 'medium')
    return before
