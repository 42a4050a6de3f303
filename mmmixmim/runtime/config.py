"""Load a config, apply the command-line options, and check both."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmmixmim.validation import (
    MissingFileError,
    UserError,
    check_int_between,
    check_positive_int,
)

from .dependencies import check_dependencies, require
from .entries import config_entry, datasets_of, dicts_of

# Top-level entries that MMEngine reads but does not pass to the Runner.
_EXTRA_ENTRIES = {
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
}
# Default hooks of MMEngine, which None turns off.
_MMENGINE_HOOKS = {
    'runtime_info',
    'timer',
    'sampler_seed',
    'logger',
    'param_scheduler',
    'checkpoint',
}


def load_config(
    path: str | Path, options: dict | None = None, save_as: str = 'config.py'
) -> Config:
    """Load a config and apply options.

    Modules of ``custom_imports`` are imported, whether the config file or an option
    names them.

    Args:
        path: The config file.
        options: Values by dotted names of entries, as from ``--cfg-options``. Defaults
            to None: none.
        save_as: Name of the file in the work_dir that a runner saves the config to.
            Under the config's own name, mim would find it twice when work_dirs is
            inside the checkout. Defaults to 'config.py'.

    Returns:
        The config. All packages that it needs are installed.

    Raises:
        MissingFileError: If the config, or one that it is based on, does not exist.
        UserError: If an option matches no entry of the config, a package is
            missing, or a module of ``custom_imports`` cannot be imported.
    """
    cfg = _read(path)
    if options:
        _check_option_names(options, cfg)
        _merge(options, cfg)
    if cfg.get('custom_imports'):
        _import_custom_modules(cfg.custom_imports)
    check_dependencies(cfg)
    _check_init(cfg.get('model'))
    _complete(cfg)
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=save_as)


def prepare_run(
    cfg: Config,
    path: str | Path,
    launcher: str = 'none',
    work_dir: str | None = None,
    local_rank: str = '0',
) -> None:
    """Set what a runner needs besides the config, in place.

    Args:
        cfg: The config.
        path: Its file, which names the run.
        launcher: See :func:`~mmmixmim.runtime.add_run_arguments`.
        work_dir: Folder of the run. Defaults to None: the config's, or one in
            ``work_dirs`` with the name of the file.
        local_rank: Number of this process on its machine, unless the launcher has set
            ``LOCAL_RANK``.
    """
    os.environ.setdefault('LOCAL_RANK', local_rank)
    name = Path(path).stem
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs', name))
    cfg.setdefault('experiment_name', name)


def _read(path: str | Path) -> Config:
    try:
        # An option may still change custom_imports.
        return Config.fromfile(path, import_custom_modules=False)
    except ModuleNotFoundError as error:
        # MMEngine raises this for `_base_ = 'mmdet::...'` without mmdet.
        for scope in ('mmdet', 'mmseg'):
            if str(error).startswith(scope):
                require(scope, f'the config uses {scope}, which')
        raise
    except UserError:
        raise
    except FileNotFoundError as error:
        missing = error.filename or str(error)
        if missing == str(path) or not Path(path).exists():
            raise MissingFileError(
                f'The config {str(path)!r} does not exist: check its path.'
            ) from error
        raise MissingFileError(
            f'The config {str(path)!r} names a file that does not exist: {missing!r}.'
        ) from error
    # The file is a program, which may fail in any way.
    except Exception as error:
        line = f', line {error.lineno}' if isinstance(error, SyntaxError) else ''
        raise UserError(
            f'The config {path} cannot be read: {type(error).__name__}{line}: '
            f'{error.msg if line else error}'
        ) from error


def _complete(cfg: Config) -> None:
    """Check and complete model, loaders, seed, hooks and learning rate, in place."""
    model = cfg.get('model')
    if model and 'data_preprocessor' not in model and cfg.get('data_preprocessor'):
        # Where MMEngine's Runner puts it; some tools build the model alone.
        model.data_preprocessor = cfg.pop('data_preprocessor')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader):
            _check_dataloader(cfg[loader], loader)
            _complete_dataloader(cfg[loader], cfg.get('default_scope'))
    seed = config_entry(cfg, 'randomness.seed')
    if seed is not None:
        check_int_between('randomness.seed', seed, 0, 2**32 - 1)
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in _MMENGINE_HOOKS:  # MMEngine cannot turn others off
            del hooks[name]
    optimizer = config_entry(cfg, 'optim_wrapper.optimizer') or {}
    if not isinstance(optimizer, dict):
        raise UserError(
            f'optim_wrapper.optimizer must be a dict, got {optimizer!r}: set '
            'optim_wrapper.optimizer.type instead.'
        )
    rate = optimizer.get('lr', 0.0)
    if not isinstance(rate, (int, float)):
        raise UserError(f'optim_wrapper.optimizer.lr must be a number, got {rate!r}.')


def check_data_roots(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the image folders and annotation files exist.

    For configs of mmdet and mmseg, whose own errors do not name the option to set.

    Args:
        cfg: The config.
        splits: The dataloaders that the run uses: 'train', 'val', 'test'.

    Raises:
        MissingFileError: If one is missing. The message names the path and the
            option that sets it.
    """
    if cfg.get('default_scope') not in ('mmdet', 'mmseg'):
        return
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, dataset in datasets_of(loader, f'{split}_dataloader'):
            root = str(dataset.get('data_root') or '')
            if not root or '://' in root:
                continue
            names = dict(data_root='', ann_file=dataset.get('ann_file') or '')
            for name, prefix in (dataset.get('data_prefix') or {}).items():
                names[f'data_prefix.{name}'] = prefix or ''
            for option, name in names.items():
                path = Path(root, name)
                if '://' not in name and not path.exists():
                    raise MissingFileError(
                        f'{path}, from {key}.{option}, does not exist. Pass '
                        f'--cfg-options {key}.data_root=FOLDER (and set ann_file of '
                        'the evaluators, if they have one), or link the dataset there.'
                    )


def _check_option_names(options: dict, cfg: Config) -> None:
    """Raise if an option sets an entry that neither the config nor MMEngine has."""
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *_EXTRA_ENTRIES}
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f' Did you mean {close[0]}?' if close else ''
            raise UserError(f'--cfg-options {option}: the config has no {name}.{hint}')


def _merge(options: dict, cfg: Config) -> None:
    try:
        cfg.merge_from_dict(options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        given = ' '.join(f'{name}={value}' for name, value in options.items())
        reason = error.args[0] if error.args else type(error).__name__
        raise UserError(
            f'--cfg-options {given} does not fit the config: {reason}.'
        ) from error


def _import_custom_modules(custom_imports: object) -> None:
    """Import the modules of ``custom_imports``, a list of names or a single one."""
    names = isinstance(custom_imports, dict) and custom_imports.get('imports')
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, (list, tuple)) or not all(type(n) is str for n in names):
        raise UserError(
            'custom_imports must be a dict whose entry imports lists module names, '
            f'got {custom_imports}.'
        )
    for name in names:
        try:
            import_modules_from_strings(**custom_imports | dict(imports=name))
        except ImportError as error:
            cause = error.__context__ or error  # MMEngine's own message drops it
            raise UserError(
                f'custom_imports: cannot import {name} ({cause}). Install it, or add '
                'its folder to PYTHONPATH.'
            ) from error


def _check_init(model: object) -> None:
    """Raise if an ``init_cfg`` anywhere in a model has entries, but no type."""
    for key, node in dicts_of(model, 'model'):
        if re.search(r'\.init_cfg(\.\d+)?$', key) and node and 'type' not in node:
            raise UserError(
                f'{key} has no type: to start from the weights in '
                f'{node.get("checkpoint", "a file")}, set {key}.type=Pretrained.'
            )


def _check_dataloader(loader: dict, key: str) -> None:
    """Check the numbers of a dataloader."""
    if loader.get('batch_size') is not None:
        check_positive_int(f'{key}.batch_size', loader['batch_size'])
    check_int_between(f'{key}.num_workers', loader.get('num_workers', 0), 0, 1024)


def _complete_dataloader(loader: dict, scope: str | None) -> None:
    """Set the entries of a dataloader that depend on the machine."""
    cuda = torch.cuda.is_available()
    loader['pin_memory'] = cuda and loader.get('pin_memory', True)
    # PyTorch raises an error for persistent workers without workers.
    workers = loader.get('num_workers', 0) > 0
    loader['persistent_workers'] = workers and loader.get('persistent_workers', True)
    if scope in ('mmmixmim', 'mmpretrain'):
        # Their data preprocessors expect stacked batches; mmdet's and mmseg's do not.
        loader.setdefault('collate_fn', dict(type='default_collate'))
