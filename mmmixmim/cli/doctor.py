"""Check the installation and the machine, and name the way out."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from mmengine.utils.dl_utils import collect_env
from packaging.requirements import Requirement

from mmmixmim.runtime.dependencies import install_command

from .machine import GIB, Machine, busy_note, this_machine

_FORKED = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmsegmentation')
# Of MMEngine's report; `python -c 'import torch; print(torch.__config__.show())'`.
_TEDIOUS = ('PyTorch compiling details', 'numpy_random_seed', 'MUSA available')
_OPTIONAL = {
    'sklearn': ('linear probes', 'pip install scikit-learn'),
    'matplotlib': ('pictures', 'pip install matplotlib'),
    'mim': ('`mim train`', 'pip install onedl-mim'),
}


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        level: 'ok', 'note' (something optional is missing) or 'wrong'.
        what: One line.
        way_out: Command that corrects it.
    """

    level: str
    what: str
    way_out: str = ''


def doctor() -> bool:
    """Print the environment and all checks.

    Returns:
        Whether nothing is wrong.
    """
    for name, value in collect_env().items():
        if name not in _TEDIOUS:
            print(f'{name}: {" ".join(str(value).split())}')
    print()
    checks = list(run_checks(this_machine()))
    for check in checks:
        print(f'{check.level:6}{check.what}')
        if check.way_out:
            print(f'      -> {check.way_out}')
    wrong = sum(check.level == 'wrong' for check in checks)
    print(f'\n{wrong} of {len(checks)} checks failed.' if wrong else '\nAll is well.')
    return not wrong


def run_checks(machine: Machine) -> Iterator[Check]:
    """Run all checks."""
    yield from _versions()
    yield from _forks()
    yield from _ops()
    yield from _optional()
    yield _gpu(machine)
    yield _threads(machine)
    if note := busy_note(machine):
        yield Check('note', *note)
    yield from _shared_memory(machine)
    free = shutil.disk_usage('.').free / GIB
    level = 'ok' if free > 1 else 'wrong'
    yield Check(level, f'{free:.1f} GiB free in the current folder')


def _versions() -> Iterator[Check]:
    """Compare what is installed with what this package asks for."""
    try:
        lines = requires('mmmixmim') or []
    except PackageNotFoundError:
        yield Check('note', 'mmmixmim is not installed', 'pip install -e .')
        return
    for line in lines:
        wanted = Requirement(line)
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            if wanted.marker is None:
                command = f"pip install '{wanted.name}{wanted.specifier}'"
                yield Check('wrong', f'{wanted.name} is missing', command)
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield Check(
                'wrong',
                f'{wanted.name} {found} does not fit, expected {wanted.specifier}',
                f"pip install '{wanted.name}{wanted.specifier}'",
            )
    torch_version = torch.__version__.split('+')[0]
    yield Check('ok', f'torch {torch_version}')


def _forks() -> Iterator[Check]:
    """Find packages that are installed from upstream and from the forks at once."""
    for name in _FORKED:
        fork = 'onedl-mmdetection' if name == 'mmdet' else f'onedl-{name}'
        if _installed(name) and _installed(fork):
            yield Check(
                'wrong',
                f'{name} and {fork} overwrite each other',
                f'pip uninstall -y {name} && pip install --force-reinstall --no-deps '
                f'{fork}',
            )


def _ops() -> Iterator[Check]:
    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        reason = str(error).splitlines()[0]
        yield Check(
            'note',
            f"mmcv's compiled ops are missing, which only detection needs ({reason})",
            install_command('mmcv.ops'),
        )
    else:
        yield Check('ok', "mmcv's compiled ops")


def _optional() -> Iterator[Check]:
    for module, (use, command) in _OPTIONAL.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield Check('note', f'no {use}: {error}', command)


def _gpu(machine: Machine) -> Check:
    if machine.on_gpu:
        bf16 = 'bfloat16' if machine.bf16 else 'no bfloat16'
        free = machine.memory / GIB
        return Check('ok', f'{machine.name}, {free:.1f} GiB free, {bf16}')
    if shutil.which('nvidia-smi'):
        return Check(
            'wrong',
            f'there is a GPU that torch {torch.__version__} does not see',
            'pip install --force-reinstall torch torchvision, in a version for the '
            'CUDA that nvidia-smi shows',
        )
    return Check('note', f'no GPU; {machine.cores} CPU cores train')


def _threads(machine: Machine) -> Check:
    threads = torch.get_num_threads()
    if threads > machine.cores:
        return Check(
            'wrong',
            f'{threads} threads on {machine.cores} cores wait for each other',
            f'export OMP_NUM_THREADS={machine.cores}',
        )
    if not machine.on_gpu and threads < machine.cores // 2:
        return Check(
            'note',
            f'{threads} of {machine.cores} cores compute',
            f'export OMP_NUM_THREADS={machine.cores}',
        )
    return Check('ok', f'threads: {threads}, on {machine.cores} cores')


def _shared_memory(machine: Machine) -> Iterator[Check]:
    """Loader processes hand their batches over in shared memory."""
    if machine.shared_memory < GIB:
        free = f'{machine.shared_memory / GIB:.2f} GiB of free shared memory'
        yield Check(
            'wrong',
            f'{free} are too few for many loader processes',
            'docker run --shm-size=8g ..., remove what lies in /dev/shm, or train with '
            '--workers 0',
        )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
