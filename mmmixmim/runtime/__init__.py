"""Shared by the scripts in ``tools``: options, configs, the runner, steps."""

from .config import check_data_roots, load_config
from .dependencies import check_dependencies, require
from .errors import one_line_errors
from .options import add_cfg_options, add_run_arguments, positive_int
from .random_state import kept_random_state
from .runner import build_runner
from .steps import Step, duration, run_steps

__all__ = [
    'Step',
    'add_cfg_options',
    'add_run_arguments',
    'build_runner',
    'check_data_roots',
    'check_dependencies',
    'duration',
    'kept_random_state',
    'load_config',
    'one_line_errors',
    'positive_int',
    'require',
    'run_steps',
]
