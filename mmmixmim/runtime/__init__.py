"""Options, configs and the runner, for the commands and ``tools``."""

from .config import check_data_roots, load_config, prepare_run
from .dependencies import check_dependencies, require
from .device import training_device
from .errors import is_out_of_memory, naming_full_memory, one_line_errors
from .files import replace_file, write_json
from .options import add_cfg_options, add_run_arguments, positive_int, random_seed
from .random_state import kept_random_state
from .runner import build_runner, locked_run, passes_of_step

__all__ = [
    'add_cfg_options',
    'add_run_arguments',
    'build_runner',
    'check_data_roots',
    'check_dependencies',
    'is_out_of_memory',
    'kept_random_state',
    'load_config',
    'locked_run',
    'naming_full_memory',
    'one_line_errors',
    'passes_of_step',
    'positive_int',
    'prepare_run',
    'random_seed',
    'replace_file',
    'require',
    'training_device',
    'write_json',
]
