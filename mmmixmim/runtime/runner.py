"""Build MMEngine's runner from a config."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .dependencies import check_backends


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config.

    Args:
        cfg: A config from :func:`~mmmixmim.runtime.load_config`.

    Raises:
        MissingDependencyError: If a visualizer backend is not installed.
    """
    check_backends(cfg)
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        # MMEngine assumes NCCL and one GPU per process.
        torch.distributed.init_process_group('gloo')
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
        cfg.setdefault('model_wrapper_cfg', wrapper)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)
