"""What the scripts in ``tools`` share."""

from .cli import (
    UsageError,
    add_cfg_options,
    add_run_arguments,
    build_runner,
    load_config,
    one_line_errors,
    positive_int,
)
from .dependencies import MissingDependencyError, check_dependencies

__all__ = [
    'MissingDependencyError',
    'UsageError',
    'add_cfg_options',
    'add_run_arguments',
    'build_runner',
    'check_dependencies',
    'load_config',
    'one_line_errors',
    'positive_int',
]
