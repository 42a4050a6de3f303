"""Run the scripts in ``tools``: in a new process, or in this one, which is faster."""

import importlib.util
import io
import os
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
from mmengine.utils import ManagerMixin

from .conftest import ROOT

TOOLS = ROOT / 'tools'
DIGITS = ROOT / 'configs' / 'digits'
(PRETRAIN,) = DIGITS.glob('mixmim_mixmim-tiny_*_digits.py')
(CLASSIFY,) = DIGITS.glob('mixmim-tiny_*_digits.py')
(FOLDER,) = (ROOT / 'configs' / 'folder').glob('mixmim_mixmim-tiny_*_folder.py')
SHAPES = ROOT / 'configs' / 'shapes'

ONE_EPOCH = ('train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1')
NO_WORKERS = 'train_dataloader.num_workers=0'
ONE_ITERATION = (*ONE_EPOCH, NO_WORKERS, 'train_dataloader.num_batch_per_epoch=1')


def run(script, *arguments, cwd, **environment) -> subprocess.CompletedProcess:
    """Run a script in a new process, as a user would."""
    starter = 'bash' if str(script).endswith('.sh') else sys.executable
    return subprocess.run(
        [str(part) for part in (starter, TOOLS / script, *arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHON': sys.executable, **environment},
        capture_output=True,
        text=True,
    )


def call(script, *arguments, cwd) -> subprocess.CompletedProcess:
    """Run a Python script in this process, where most imports are already done."""
    path = TOOLS / script
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with _state_of_a_new_process(path, arguments, cwd):
        with redirect_stdout(out), redirect_stderr(err):
            try:
                runpy.run_path(str(path), run_name='__main__')
            except SystemExit as exit:
                code = exit.code or 0
                if isinstance(code, str):
                    print(code, file=sys.stderr)
                    code = 1
            except Exception:
                traceback.print_exc()
                code = 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def passed(result: subprocess.CompletedProcess) -> str:
    """Check that a script succeeded; return its output."""
    assert result.returncode == 0, result.stderr + result.stdout
    return result.stdout


def error_line(result: subprocess.CompletedProcess) -> str:
    """Check that a script failed with one line ``error: ...``; return the line."""
    assert result.returncode == 1, result.stderr + result.stdout
    assert 'Traceback' not in result.stderr, result.stderr
    (line,) = [x for x in result.stderr.splitlines() if x.startswith('error: ')]
    assert line == result.stderr.rstrip('\n').splitlines()[-1]
    return line


def load(script) -> ModuleType:
    """Import a script as a module without running it."""
    path = TOOLS / script
    spec = importlib.util.spec_from_file_location(f'script_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [str(path.parent), *sys.path])
        spec.loader.exec_module(module)
    return module


def free_port() -> str:
    """Find a free port."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


@contextmanager
def _state_of_a_new_process(path: Path, arguments: tuple, cwd: Path) -> Iterator[None]:
    """Emulate a new process: arguments, folder, environment, MMEngine's globals."""
    before = sys.argv, sys.path[:], os.environ.copy(), os.getcwd()
    managed = {each: each._instance_dict.copy() for each in _subclasses(ManagerMixin)}
    for each in managed:
        each._instance_dict.clear()
    sys.argv = [str(part) for part in (path, *arguments)]
    sys.path.insert(0, str(path.parent))
    os.chdir(cwd)
    try:
        yield
    finally:
        for each in _subclasses(ManagerMixin):
            for instance in each._instance_dict.values():
                for handler in getattr(instance, 'handlers', ()):  # of a logger
                    handler.close()
            each._instance_dict.clear()
            each._instance_dict.update(managed.get(each, {}))
        sys.argv, sys.path[:], environment, folder = before
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(each) for each in kind.__subclasses__()))
