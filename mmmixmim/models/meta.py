"""Models of any size without memory, on PyTorch's meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.registry import MODELS
from torch import nn
from torch.overrides import TorchFunctionMode


class _RatesOnCpu(TorchFunctionMode):
    """Stock encoders read their drop path rates from the values of a tensor."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


@contextmanager
def meta_device() -> Iterator[None]:
    """Build models on the meta device, those of stock classes too."""
    with torch.device('meta'), _RatesOnCpu():
        yield


def build_on_meta(config: dict) -> nn.Module:
    """Build a model from its config on the meta device.

    A model that reads values of tensors is built with memory first, and then moved.
    """
    try:
        with meta_device():
            return MODELS.build(copy.deepcopy(config))
    except (RuntimeError, NotImplementedError):
        return MODELS.build(config).to('meta')
