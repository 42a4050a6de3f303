"""The optional packages that a config needs, checked before anything is built."""

import importlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from mmengine.config import Config

from mmmixmim.validation import MissingDependencyError

# What to install beside the onedl-* forks of OpenMMLab, and beside upstream.
_COMMANDS = {
    'mmdet': ('pip install onedl-mmdetection', 'mim install mmdet'),
    'mmseg': ('pip install onedl-mmsegmentation', 'mim install mmsegmentation'),
    'pycocotools': ('pip install pycocotools',) * 2,
    # Only without build isolation does the build see torch, and so makes the ops.
    'mmcv.ops': (
        'pip install ninja packaging setuptools==80.10.2 wheel && pip install '
        '--no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv',
        'mim install mmcv',
    ),
}
# mmseg and mmpretrain import without mmcv's compiled ops, mmdet's models do not.
_NEEDS = {
    'mmdet': ('mmdet', 'mmcv.ops'),
    'mmseg': ('mmseg',),
    'pycocotools': ('pycocotools',),
}


def check_dependencies(cfg: Config) -> None:
    """Check that the OpenMMLab packages which a config names are there.

    Args:
        cfg: A whole config, with ``_base_`` already merged.

    Raises:
        MissingDependencyError: A type of mmdet or mmseg is named and the package or
            mmcv's compiled ops are missing. The message has the command that
            installs them.
    """
    for scope in sorted(_scopes(cfg.to_dict()) & _NEEDS.keys()):
        require(scope, f'the config uses {scope}, which')


def require(scope: str, who: str = 'this') -> None:
    """Import what a scope takes, or say how to install it.

    Args:
        scope: ``'mmdet'``, ``'mmseg'`` or ``'pycocotools'``.
        who: What needs it, for the message.

    Raises:
        MissingDependencyError: It is not there.
    """
    for module in _NEEDS[scope]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            what = "mmcv's compiled ops" if module == 'mmcv.ops' else module
            raise MissingDependencyError(
                f'{who} needs {what} ({error}). '
                f'Install it with: {_COMMANDS[module][not _has_forks()]}'
            ) from error


def _scopes(cfg: dict) -> set[str]:
    """Collect the registry scopes that a config names."""
    return {str(name).split('.')[0] for name in _names(cfg)}


def _names(node: object) -> Iterator[object]:
    """Walk a config and yield what its ``type`` and scope entries hold."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ('type', '_scope_', 'default_scope'):
                yield value
            yield from _names(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _names(value)


def _has_forks() -> bool:
    """Whether mmengine comes from the onedl-* forks."""
    try:
        distribution('onedl-mmengine')
    except PackageNotFoundError:
        return False
    return True
