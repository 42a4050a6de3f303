"""What the scripts in ``tools`` share."""

from .cli import (
    UsageError,
    add_cfg_options,
    add_run_arguments,
    build_runner,
    check_data_roots,
    load_config,
    one_line_errors,
    positive_int,
)
from .dependencies import MissingDependencyError, check_dependencies, require
from .steps import Step, duration, run_steps

__all__ = [
    'MissingDependencyError',
    'Step',
    'UsageError',
    'add_cfg_options',
    'add_run_arguments',
    'build_runner',
    'check_data_roots',
    'check_dependencies',
    'duration',
    'load_config',
    'one_line_errors',
    'positive_int',
    'require',
    'run_steps',
]
