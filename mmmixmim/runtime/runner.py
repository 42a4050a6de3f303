"""Build MMEngine's runner from a config."""

from __future__ import annotations

import os

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner, find_latest_checkpoint

from mmmixmim.validation import (
    TRUST_VARIABLE,
    RefusedFileError,
    UserError,
    is_trusted,
)

# Their engines read checkpoints by themselves, as pickles.
_UNSAFE_STRATEGIES = ('DeepSpeedStrategy', 'ColossalAIStrategy')

# Hooks that no config should forget.
_HOOKS = dict(
    plain_checkpoint='PlainCheckpointHook', unreadable_images='UnreadableImagesHook'
)


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config, with hooks for plain checkpoints and bad images.

    Args:
        cfg: A config from :func:`~mmmixmim.runtime.load_config`.

    Raises:
        RefusedFileError: If an engine would run code in a checkpoint that the user does
            not trust.
        UserError: If the work folder cannot be written.
    """
    _check_trust(cfg)
    _make_work_dir(cfg.work_dir)
    hooks = dict(cfg.get('default_hooks') or {})
    for name, kind in _HOOKS.items():
        hooks[name] = dict(type=f'mmmixmim.{kind}') | hooks.get(name, {})
    cfg.default_hooks = hooks
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        # MMEngine assumes NCCL and one GPU per process.
        torch.distributed.init_process_group('gloo')
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
        cfg.setdefault('model_wrapper_cfg', wrapper)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def _make_work_dir(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'The work folder {folder!r} cannot be made ({error.strerror}): name '
            'another one with --work-dir.'
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(
            f'The work folder {folder!r} cannot be written: name another one with '
            '--work-dir.'
        )


def _check_trust(cfg: Config) -> None:
    strategy = str((cfg.get('strategy') or {}).get('type', ''))
    if not strategy.endswith(_UNSAFE_STRATEGIES):
        return
    path = cfg.get('load_from')
    if cfg.get('resume') and not path:
        path = find_latest_checkpoint(cfg.work_dir)
    if path and not is_trusted(path):
        raise RefusedFileError(
            f'{path} is not loaded: {strategy} runs code in checkpoints. If you trust '
            f'where it comes from, set the environment variable {TRUST_VARIABLE}={path}'
        )
