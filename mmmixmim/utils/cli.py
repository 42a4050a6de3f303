"""From command-line options to a runner, for ``tools/train.py`` and ``test.py``."""

import argparse
import difflib
import inspect
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .dependencies import MissingDependencyError, check_dependencies, require

__all__ = [
    'UsageError',
    'add_cfg_options',
    'add_run_arguments',
    'build_runner',
    'check_data_roots',
    'load_config',
    'one_line_errors',
    'positive_int',
]


class UsageError(Exception):
    """The command line or the config asks for what cannot be done."""


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides entries of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override config entries, e.g. train_dataloader.batch_size=32',
    )


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    add_cfg_options(parser)
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (work_dirs/<config name>)'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        '--local-rank', '--local_rank', default='0', help=argparse.SUPPRESS
    )


def positive_int(text: str) -> int:
    """Read a whole number from 1 on, for the ``type`` of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text!r} is no whole number from 1 on')
    return int(text)


def load_config(args: argparse.Namespace) -> Config:
    """Load the config and apply the options of the command line.

    Args:
        args: Parsed arguments with ``config``, the option of ``add_cfg_options``
            and, for a run, those of ``add_run_arguments``.

    Returns:
        The config, checked for missing packages.
    """
    try:
        cfg = Config.fromfile(args.config)
    except ModuleNotFoundError as error:
        # mmengine's answer to `_base_ = 'mmdet::...'` without mmdet.
        for scope in ('mmdet', 'mmseg'):
            if str(error).startswith(scope):
                require(scope, f'the config uses {scope}, which')
        raise
    _check_option_names(args.cfg_options, cfg)
    cfg.merge_from_dict(args.cfg_options)
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


def _check_option_names(options: dict, cfg: Config) -> None:
    """Refuse an option that no part of the config or the runner would read."""
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters}
    known |= {'runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'compile'}
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f' Did you mean {close[0]}?' if close else ''
            raise UsageError(f'--cfg-options {option}: there is no {name}.{hint}')


def check_data_roots(cfg: Config, splits: tuple[str, ...]) -> None:
    """Refuse datasets of mmdet and mmseg whose folders or annotations are not there.

    Args:
        cfg: The config.
        splits: Which dataloaders a run reads, of 'train', 'val' and 'test'.

    Raises:
        UsageError: With the path and the option that sets it.
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
                    raise UsageError(
                        f'{path} is not there, which {key}.{option} names. Set {key}.'
                        'data_root=FOLDER by --cfg-options (and the ann_file of the '
                        'evaluators, if they have one), or link the dataset there.'
                    )


def _datasets(node: dict, key: str) -> Iterator[tuple[str, dict]]:
    """The datasets inside a dataloader and wrappers, and what options name them."""
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


def build_runner(cfg: Config) -> Runner:
    """Build the runner that a config describes.

    Args:
        cfg: What ``load_config`` returned.
    """
    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        # The runner would ask for NCCL and for a device per process.
        torch.distributed.init_process_group('gloo')
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
        cfg.setdefault('model_wrapper_cfg', wrapper)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn the mistakes of users into one line; let bugs keep their traceback."""
    try:
        yield
    except (UsageError, MissingDependencyError, FileNotFoundError) as error:
        # What a data loading process raised comes with a traceback before it.
        *_, last = str(error).strip().splitlines() or ['']
        worker = str(error).startswith('Caught ')
        raise SystemExit(f'error: {last if worker else error}') from error
    except (TypeError, ValueError) as error:
        unknown = re.search("unexpected keyword argument '(.+?)'", str(error))
        if unknown:
            raise SystemExit(
                f'error: {error}. Check the entry {unknown[1]} in the config and in '
                '--cfg-options.'
            ) from error
        if not _refused_by_us(error):
            raise
        raise SystemExit(f'error: {error}') from error
    except AssertionError as error:
        unreadable = re.search(r'failed to load image: (.+)', str(error))
        if unreadable is None:
            raise
        raise SystemExit(
            f'error: the image {unreadable[1]} cannot be read: repair or remove it, '
            'and continue with --resume.'
        ) from error
    except OSError as error:
        # Of LoadRandomResizedCrop; from a worker, a traceback is around it.
        unreadable = re.search(r"The image '.+' cannot be read: .+", str(error))
        if unreadable is None:
            raise
        raise SystemExit(
            f'error: {unreadable[0]} Then continue with --resume, which begins anew '
            'if no checkpoint was saved yet.'
        ) from error
    except KeyError as error:
        # mmengine's registries: a type that is not registered.
        if 'registry' not in str(error):
            raise
        raise SystemExit(f'error: {error.args[0]}') from error


def _refused_by_us(error: BaseException | None) -> bool:
    """Whether the package raised an error, or what MMEngine made it from."""
    package = Path(__file__).parents[1]
    while error is not None:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if package in Path(frame.f_code.co_filename).parents:
            return True
        error = error.__cause__ or error.__context__
    return False
