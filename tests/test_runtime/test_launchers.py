"""What launchers tell a process about the run."""

import errno
import fcntl
import os
import tempfile

import pytest
from mmengine.config import Config

from mmmixmim.runtime.launchers import _import_yapf, _set_variables, init_processes
from mmmixmim.validation import UserError

NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')
SLURM = dict(SLURM_PROCID='5', SLURM_NTASKS='8', SLURM_LOCALID='1')
MPI = dict(
    OMPI_COMM_WORLD_RANK='5', OMPI_COMM_WORLD_SIZE='8', OMPI_COMM_WORLD_LOCAL_RANK='1'
)


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """Setter of environment variables; those of PyTorch are unset."""
    for name in NAMES:
        monkeypatch.setenv(name, '')  # restored afterwards
        monkeypatch.delenv(name)
    return lambda values: [monkeypatch.setenv(*pair) for pair in values.items()]


def found():
    return tuple(os.environ[name] for name in NAMES)


def test_slurm(variables, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames a[1-4]" ] && echo a1 a2\n')
    scontrol.chmod(0o755)
    job = dict(SLURM_JOB_NODELIST='a[1-4]', SLURM_JOB_ID='123456')
    variables(SLURM | job | dict(PATH=f'{tmp_path}:{os.environ["PATH"]}'))
    _set_variables('slurm')
    assert found() == ('5', '8', '1', 'a1', '23456')


def test_slurm_takes_an_address_that_is_set(variables):
    variables(SLURM | dict(MASTER_ADDR='10.0.0.1', MASTER_PORT='29501', PATH=''))
    _set_variables('slurm')
    assert found() == ('5', '8', '1', '10.0.0.1', '29501')


def test_slurm_without_its_tools_asks_for_the_address(variables):
    variables(SLURM | dict(SLURM_JOB_NODELIST='a[1-4]', PATH=''))
    with pytest.raises(UserError, match=r"first of 'a\[1-4\]'.* Set MASTER_ADDR"):
        _set_variables('slurm')


def test_mpi_on_one_machine(variables):
    variables(MPI | dict(OMPI_COMM_WORLD_LOCAL_SIZE='8', LOCAL_RANK='0'))
    _set_variables('mpi')
    assert found() == ('5', '8', '1', '127.0.0.1', '29500')


def test_mpi_on_several_machines_needs_the_address(variables):
    variables(MPI | dict(OMPI_COMM_WORLD_LOCAL_SIZE='4'))
    with pytest.raises(UserError, match='mpirun -x MASTER_ADDR'):
        _set_variables('mpi')
    variables(dict(MASTER_ADDR='10.0.0.1'))
    _set_variables('mpi')
    assert found() == ('5', '8', '1', '10.0.0.1', '29500')


@pytest.mark.parametrize(
    'launcher, name, starter',
    [
        ('pytorch', 'RANK', 'torchrun'),
        ('slurm', 'SLURM_PROCID', 'srun'),
        ('mpi', 'OMPI_COMM_WORLD_RANK', 'mpirun'),
    ],
)
def test_a_process_that_was_not_started_so_is_told(
    launcher, name, starter, monkeypatch
):
    monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=f'{name} is not set.*with .*{starter}'):
        init_processes(Config(dict(launcher=launcher)))


@pytest.mark.parametrize('fault', ['no locks', 'not writable', 'no folder'])
def test_a_disk_without_locks_or_with_a_lock_of_another_user(
    fault, tmp_path, monkeypatch
):
    def refuse(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    if fault == 'no locks':
        monkeypatch.setattr(fcntl, 'flock', refuse)
    elif fault == 'not writable':
        (tmp_path / f'mmmixmim-yapf-{os.getuid()}.lock').mkdir()
    else:
        monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'nowhere'))
    _import_yapf()
