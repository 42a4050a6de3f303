"""What the scripts in ``tools`` share."""

from .cli import UsageError, build_runner, load_config, one_line_errors
from .dependencies import MissingDependencyError, check_dependencies

__all__ = [
    'MissingDependencyError',
    'UsageError',
    'build_runner',
    'check_dependencies',
    'load_config',
    'one_line_errors',
]
