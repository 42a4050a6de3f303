"""Check the optional packages that a config needs, before anything is built."""

import importlib
import importlib.util
from importlib.metadata import PackageNotFoundError, distribution

from mmengine.config import Config

from mmmixmim.validation import MissingDependencyError, UserError

from .entries import dicts_of, type_name

# Install commands: with the onedl-* forks of OpenMMLab, and with upstream.
_COMMANDS = {
    'mmdet': ('pip install onedl-mmdetection', 'mim install mmdet'),
    'mmseg': ('pip install onedl-mmsegmentation', 'mim install mmsegmentation'),
    'pycocotools': ('pip install pycocotools',) * 2,
    # The build skips the ops unless it sees torch, so no build isolation.
    'mmcv.ops': (
        'pip install ninja packaging setuptools==80.10.2 wheel && pip install '
        '--no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv',
        'mim install mmcv',
    ),
}
# mmdet's models need mmcv's compiled ops; mmseg and mmpretrain import without.
_NEEDS = {
    'mmdet': ('mmdet', 'mmcv.ops'),
    'mmseg': ('mmseg',),
    'pycocotools': ('pycocotools',),
}

# MMEngine's visualizer backends that need a package.
_BACKENDS = {
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml',
    'NeptuneVisBackend': 'neptune',
    'DVCLiveVisBackend': 'dvclive',
    'AimVisBackend': 'aim',
}


def prepare_backends(cfg: Config) -> None:
    """Turn names of visualizer backends to configs, and check that they can be used.

    MMEngine's ``--cfg-options`` reads no list of dicts, but a list of names.

    Args:
        cfg: Config of a run. ``visualizer.vis_backends`` may have names among the
            configs, or be a name.

    Raises:
        MissingDependencyError: If the package of a backend is not installed. The
            message has the install command.
        UserError: If an entry is neither a name nor a config.
    """
    visualizer = cfg.get('visualizer') or {}
    backends = visualizer.get('vis_backends') or []
    backends = backends if isinstance(backends, (list, tuple)) else [backends]
    backends = [dict(type=each) if _is_name(each) else each for each in backends]
    for backend in backends:
        if not isinstance(backend, dict):
            raise UserError(
                'visualizer.vis_backends must be names, such as '
                f'[LocalVisBackend,TensorboardVisBackend], got {backend!r}.'
            )
        name = type_name(backend)
        package = _BACKENDS.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f'The visualizer backend {name} needs {package}, which is not '
                f'installed. Install it with: pip install {package}'
            )
    if backends:
        visualizer['vis_backends'] = backends


def _is_name(value: object) -> bool:
    """Whether a value is the name of a class, perhaps behind a scope."""
    return isinstance(value, str) and value.replace('.', '_').isidentifier()


def check_dependencies(cfg: Config) -> None:
    """Check that the OpenMMLab packages that a config uses are installed.

    Args:
        cfg: The full config, with ``_base_`` merged.

    Raises:
        MissingDependencyError: If the config uses a type of mmdet or mmseg, and the
            package or mmcv's compiled ops are missing. The message has the install
            command.
    """
    for scope in sorted(_scopes(cfg.to_dict()) & _NEEDS.keys()):
        require(scope, f'the config uses {scope}, which')


def require(scope: str, who: str = 'this') -> None:
    """Import the packages of a scope, or say how to install them.

    Args:
        scope: ``'mmdet'``, ``'mmseg'`` or ``'pycocotools'``.
        who: The subject of the message: what needs the package.

    Raises:
        MissingDependencyError: If one is not installed.
    """
    for module in _NEEDS[scope]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            what = "mmcv's compiled ops" if module == 'mmcv.ops' else module
            raise MissingDependencyError(
                f'{who} needs {what} ({error}). '
                f'Install it with: {install_command(module)}'
            ) from error


def install_command(module: str) -> str:
    """Command that installs a module, for the forks or for upstream."""
    return _COMMANDS[module][not _has_forks()]


def _scopes(cfg: dict) -> set[str]:
    """Collect the registry scopes that a config uses."""
    keys = ('type', '_scope_', 'default_scope')
    return {
        str(node[key]).split('.')[0]
        for _, node in dicts_of(cfg, '')
        for key in keys
        if key in node
    }


def _has_forks() -> bool:
    """Whether mmengine is installed from the onedl-* forks."""
    try:
        distribution('onedl-mmengine')
    except PackageNotFoundError:
        return False
    return True
