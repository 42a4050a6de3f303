"""Tell PyTorch which process of a distributed run this is."""

from __future__ import annotations

import fcntl
import os
import pickle
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmmixmim.validation import UserError

# How each launcher names PyTorch's variables, and how it is used.
_NAMES = {
    'pytorch': dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE', LOCAL_RANK='LOCAL_RANK'),
    'slurm': dict(
        RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'
    ),
    'mpi': dict(
        RANK='OMPI_COMM_WORLD_RANK',
        WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
        LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}
_STARTERS = {
    'pytorch': 'torchrun, for instance by tools/dist_train.sh CONFIG GPUS',
    'slurm': 'srun, for instance by tools/slurm_train.sh PARTITION JOB_NAME CONFIG',
    'mpi': "Open MPI's mpirun",
}


def init_processes(cfg: Config) -> None:
    """Set the environment of a launcher; on a CPU, also connect the processes.

    MMEngine connects processes that have a GPU each. On a CPU it would still ask for
    one, so gloo is started here and the models are wrapped without a device.

    Args:
        cfg: A config with ``launcher``: 'none', 'pytorch', 'slurm' or 'mpi'. On a CPU
            ``model_wrapper_cfg``, or the wrapper of ``strategy``, is completed.

    Raises:
        UserError: If the launcher did not start this process.
    """
    if cfg.launcher == 'none':
        return
    _set_variables(cfg.launcher)
    _import_yapf()
    if get_device() != 'cpu':
        return
    torch.distributed.init_process_group('gloo')
    wrapper = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if cfg.get('runner_type') != 'FlexibleRunner':
        cfg.setdefault('model_wrapper_cfg', wrapper)
    elif (cfg.get('strategy') or {}).get('type', 'DDPStrategy') == 'DDPStrategy':
        cfg.strategy = dict(type='DDPStrategy', model_wrapper=wrapper) | dict(
            cfg.get('strategy') or {}
        )


def is_first(launcher: str) -> bool:
    """Whether this process has rank 0, before :func:`init_processes`."""
    rank = _NAMES.get(launcher, {}).get('RANK', '')
    return os.environ.get(rank, '0') == '0'


def _import_yapf() -> None:
    """Import what prints configs, one process at a time.

    The first import writes a cache in the home folder, and whoever reads it half
    written fails.
    """
    with ExitStack() as stack:
        # A disk may have no locks, and the file may be another user's.
        with suppress(OSError):
            path = Path(tempfile.gettempdir(), f'mmmixmim-yapf-{os.getuid()}.lock')
            lock = stack.enter_context(path.open('a'))  # never truncate what is there
            fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(20):  # other machines may share the home folder
            try:
                import yapf  # noqa: F401

                return
            except (EOFError, pickle.UnpicklingError):
                time.sleep(0.5)
    raise UserError(
        'The cache of yapf, which prints configs, is damaged: remove its folder '
        '(~/.cache/YAPF on Linux).'
    )


def _set_variables(launcher: str) -> None:
    """Set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT."""
    for name, source in _NAMES[launcher].items():
        if source not in os.environ:
            raise UserError(
                f'--launcher {launcher}: {source} is not set, so this process was not '
                f'started by it. Start it with {_STARTERS[launcher]}, or leave out '
                '--launcher to train in one process.'
            )
        os.environ[name] = os.environ[source]
    if launcher == 'slurm':
        if 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _first_slurm_host()
        # Jobs that share a machine must not share a port.
        job = int(os.environ.get('SLURM_JOB_ID', 0))
        os.environ.setdefault('MASTER_PORT', str(20000 + job % 10000))
    elif launcher == 'mpi':
        local = os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE')
        if local != os.environ['WORLD_SIZE'] and 'MASTER_ADDR' not in os.environ:
            raise UserError(
                '--launcher mpi on several machines needs MASTER_ADDR, the address of '
                'the one with rank 0: pass it with mpirun -x MASTER_ADDR=...'
            )
        os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
        os.environ.setdefault('MASTER_PORT', '29500')


def _first_slurm_host() -> str:
    hosts = os.environ.get('SLURM_JOB_NODELIST') or os.environ.get('SLURM_NODELIST', '')
    try:
        names = subprocess.run(
            ['scontrol', 'show', 'hostnames', hosts],
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split()
        return names[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise UserError(
            f'--launcher slurm: scontrol does not name the first of {hosts!r} '
            f'({error}). Set MASTER_ADDR to its address.'
        ) from error
