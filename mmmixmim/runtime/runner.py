"""Build MMEngine's runner from a config."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.registry import RUNNERS
from mmengine.runner import FlexibleRunner, Runner, find_latest_checkpoint
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.validation import (
    TRUST_VARIABLE,
    RefusedFileError,
    UserError,
    is_trusted,
)

from .dependencies import prepare_backends
from .device import training_device
from .entries import type_name
from .files import locked
from .launchers import init_processes, is_first

# Their engines read checkpoints by themselves, as pickles.
_UNSAFE_STRATEGIES = ('DeepSpeedStrategy', 'ColossalAIStrategy')

# Hooks that no config should forget.
_HOOKS = dict(
    plain_checkpoint='PlainCheckpointHook', unreadable_images='UnreadableImagesHook'
)


def build_runner(cfg: Config) -> Runner | FlexibleRunner:
    """Build the runner of a config.

    Some things are added to what MMEngine does. Distributed runs work on a CPU too.
    ``auto_scale_lr`` counts ``accumulative_counts`` of the optimizer wrapper: the
    learning rate follows the images per update. A training set that is smaller than a
    batch shrinks the batch, where ``drop_last`` would leave nothing. A run that is
    resumed does not load the weights that it began with. Hooks keep checkpoints free of
    code and count images that cannot be read. A Mac trains on its CPU.

    Args:
        cfg: A config from :func:`~mmmixmim.runtime.load_config`.

    Raises:
        MissingDependencyError: If a visualizer backend is not installed.
        RefusedFileError: If an engine would run code in a checkpoint that the user does
            not trust.
        UserError: If the work folder cannot be written, a launcher is named that did
            not start this process, a visualizer backend is no backend, or ``EMAHook``
            meets ``FlexibleRunner``.
    """
    prepare_backends(cfg)
    _check_trust(cfg)
    _make_work_dir(cfg.work_dir)
    hooks = dict(cfg.get('default_hooks') or {})
    for name, kind in _HOOKS.items():
        hooks[name] = dict(type=f'mmmixmim.{kind}') | hooks.get(name, {})
    cfg.default_hooks = hooks
    training_device()  # also what MMEngine chooses below
    init_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    _check_average(runner)
    _count_accumulation(runner, cfg)
    _scale_base_rate(runner)
    _keep_weights_of_resumed(runner)
    runner.build_dataloader = functools.partial(_build_dataloader, runner)
    return runner


@contextmanager
def locked_run(cfg: Config) -> Iterator[None]:
    """Make the work folder, and let the first process keep other runs out of it.

    Raises:
        UserError: If another run has locked it, or it cannot be written.
    """
    _make_work_dir(cfg.work_dir)
    first = is_first(cfg.launcher)
    with locked(Path(cfg.work_dir), '--work-dir') if first else nullcontext():
        yield


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
    strategy = type_name(cfg.get('strategy') or {})
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


def _check_average(runner: Runner | FlexibleRunner) -> None:
    """Raise for a moving average that could not be resumed.

    ``FlexibleRunner`` loads the checkpoint before the hook has its model. FSDP shards
    the weights, which the hook copies.
    """
    averaged = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    if averaged and isinstance(runner, FlexibleRunner):
        raise UserError(
            'EMAHook does not work with FlexibleRunner, whose runs it cannot resume: '
            'leave it out of custom_hooks, or train without runner_type and strategy, '
            'by DDP.'
        )


def passes_of_step(cfg: Config) -> int:
    """Iterations of MMEngine per step of the optimizer."""
    passes = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    strategy = cfg.get('strategy') or {}  # DeepSpeed's counts by itself
    return passes * (strategy.get('gradient_accumulation_steps') or 1)


def _count_accumulation(runner: Runner | FlexibleRunner, cfg: Config) -> None:
    """Let ``auto_scale_lr`` see the images of an update instead of a batch.

    The runner's copy changes and the config does not, since the runner has saved it:
    training again with the saved config must give the same rate.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    batches = passes_of_step(cfg)
    if not scaling.get('enable') or batches == 1:
        return
    base = scaling['base_batch_size']
    scaling = dict(scaling, base_batch_size=base / batches)
    if isinstance(runner, FlexibleRunner):
        runner.strategy._auto_scale_lr = scaling
    else:
        runner.auto_scale_lr = scaling
    runner.logger.info(
        f'An update accumulates {batches} batches, so the learning rate is scaled as '
        f'for a batch {batches} times as large: base {base} counts as {base / batches}.'
    )


def _scale_base_rate(runner: Runner | FlexibleRunner) -> None:
    """Let ``auto_scale_lr`` scale the rate that is logged as ``base_lr`` too."""
    flexible = isinstance(runner, FlexibleRunner)
    owner, name = (runner.strategy, '_scale_lr') if flexible else (runner, 'scale_lr')
    scale = getattr(owner, name)

    def scaled(*args) -> None:
        base = getattr(owner.optim_wrapper, 'base_param_settings', None)
        if base is None:
            scale(*args)
            return
        groups = owner.optim_wrapper.optimizer.param_groups
        groups.append(base)
        try:
            scale(*args)
        finally:
            groups.pop()

    setattr(owner, name, scaled)


def _keep_weights_of_resumed(runner: Runner | FlexibleRunner) -> None:
    """Initialise no weights that resuming replaces; their file may be gone."""
    owner = runner.strategy if isinstance(runner, FlexibleRunner) else runner
    initialise = owner._init_model_weights

    def unless_resumed(*model) -> nn.Module | None:
        if runner._resume and (
            runner._load_from or find_latest_checkpoint(runner.work_dir)
        ):
            return model[0] if model else None  # strategies return it
        return initialise(*model)

    owner._init_model_weights = unless_resumed


def _build_dataloader(
    runner: Runner | FlexibleRunner, dataloader: dict | DataLoader, *args, **kwargs
) -> DataLoader:
    """Build a dataloader; shrink its batch if it would drop all of a small dataset."""
    build = type(runner).build_dataloader
    loader = build(dataloader, *args, **kwargs)
    if not isinstance(dataloader, dict) or not loader.drop_last or len(loader):
        return loader
    size = len(loader.sampler)
    runner.logger.warning(
        f'The dataset has {len(loader.dataset)} samples, {size} for each of '
        f'{runner.world_size} processes, fewer than a batch of '
        f'{dataloader["batch_size"]}: the batch shrinks to {size}.'
    )
    dataloader['batch_size'] = size  # the learning rate follows
    return build({**dataloader, 'dataset': loader.dataset}, *args, **kwargs)
