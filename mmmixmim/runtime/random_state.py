"""Draw random numbers without a trace in those of the training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def kept_random_state(seed: int | None = None) -> Iterator[None]:
    """Restore the random state of Python, NumPy and PyTorch at the end.

    The state of the current GPU is restored too, if CUDA has been used.

    Args:
        seed: Seeds PyTorch inside. Defaults to None: goes on from the present state.
    """
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
