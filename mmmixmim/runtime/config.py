"""Load a config, apply the options of the command line, and check both."""

from __future__ import annotations

import argparse
import difflib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from mmmixmim.validation import MissingFileError, UserError

from .dependencies import check_dependencies, require

# Entries that MMEngine reads outside of the Runner's arguments.
_BESIDE_RUNNER = {
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
}


def load_config(args: argparse.Namespace) -> Config:
    """Load the config and apply the options of the command line.

    Args:
        args: Parsed arguments with ``config``, the option of ``add_cfg_options``
            and, for a run, those of ``add_run_arguments``.

    Returns:
        The config. The packages that it needs are installed.

    Raises:
        UserError: If an option names nothing, or a package is missing.
    """
    try:
        cfg = Config.fromfile(args.config)
    except ModuleNotFoundError as error:
        # MMEngine's answer to `_base_ = 'mmdet::...'` without mmdet.
        for scope in ('mmdet', 'mmseg'):
            if str(error).startswith(scope):
                require(scope, f'the config uses {scope}, which')
        raise
    _check_option_names(args.cfg_options, cfg)
    cfg.merge_from_dict(args.cfg_options)
    if any(option.startswith('custom_imports') for option in args.cfg_options):
        _import_modules(cfg.custom_imports)
    check_dependencies(cfg)

    if 'launcher' in args:
        os.environ.setdefault('LOCAL_RANK', args.local_rank)
        cfg.launcher = args.launcher
        default = cfg.get('work_dir') or str(Path('work_dirs', Path(args.config).stem))
        cfg.work_dir = args.work_dir or default
        cfg.setdefault('experiment_name', Path(args.config).stem)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader):
            _complete_dataloader(cfg[loader], cfg.get('default_scope'))
    # The runner saves the config under this name. Under its own, mim would find
    # it a second time where the working directory is inside the checkout.
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename='config.py')


def check_data_roots(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check that the folders and annotation files of mmdet's and mmseg's data exist.

    Args:
        cfg: The config.
        splits: Which dataloaders a run reads, of 'train', 'val' and 'test'.

    Raises:
        MissingFileError: With the path and the option that sets it.
    """
    if cfg.get('default_scope') not in ('mmdet', 'mmseg'):
        return
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for key, dataset in _datasets(loader, f'{split}_dataloader'):
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
                        f'{path}, from {key}.{option}, does not exist. Set {key}.'
                        'data_root=FOLDER by --cfg-options (and the ann_file of the '
                        'evaluators, if they have one), or link the dataset there.'
                    )


def _check_option_names(options: dict, cfg: Config) -> None:
    """Raise for an option that neither the config nor MMEngine knows."""
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *_BESIDE_RUNNER}
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f' Did you mean {close[0]}?' if close else ''
            raise UserError(f'--cfg-options {option}: there is no {name}.{hint}')


def _import_modules(custom_imports: dict) -> None:
    """Import what ``custom_imports`` names, as MMEngine does for a config file."""
    imports = custom_imports.get('imports')
    try:
        import_modules_from_strings(
            imports, custom_imports.get('allow_failed_imports', False)
        )
    except ImportError as error:
        raise UserError(
            f'custom_imports.imports={imports} failed: {error}. Name modules that '
            'Python can import from here, or add their folder to PYTHONPATH.'
        ) from error


def _datasets(node: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Datasets inside a dataloader and its wrappers, with their option names."""
    if 'dataset' in node:
        yield from _datasets(node['dataset'], f'{key}.dataset')
    elif 'datasets' in node:
        for i, part in enumerate(node['datasets']):
            yield from _datasets(part, f'{key}.datasets.{i}')
    elif 'type' in node:
        yield key, node


def _complete_dataloader(loader: dict, scope: str | None) -> None:
    """Fill in what a dataloader config leaves open and the machine decides."""
    cuda = torch.cuda.is_available()
    loader['pin_memory'] = cuda and loader.get('pin_memory', True)
    # PyTorch refuses persistent workers where there are none.
    workers = loader.get('num_workers', 0) > 0
    loader['persistent_workers'] = workers and loader.get('persistent_workers', True)
    if scope in ('mmmixmim', 'mmpretrain'):
        # Their data preprocessors take stacked batches; mmdet's and mmseg's do not.
        loader.setdefault('collate_fn', dict(type='default_collate'))
