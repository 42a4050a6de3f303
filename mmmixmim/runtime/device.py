"""Which device trains."""

from __future__ import annotations

from mmengine.device import get_device, utils

from mmmixmim.log import warn


def training_device() -> str:
    """Return the device that MMEngine chooses; on a Mac that is the CPU from now on.

    We cannot test Apple's GPU. MMEngine has no mixed precision on it, and PyTorch may
    copy images wrongly to it without an error (pytorch#189690).
    """
    if get_device() == 'mps':
        utils.DEVICE = 'cpu'
        warn("The CPU is used: on Apple's GPU nothing has been tested.")
    return get_device()
