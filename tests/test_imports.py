"""Which module imports which, and what importing the package changes elsewhere."""

import subprocess
import sys

from importlinter.cli import lint_imports

from .conftest import ROOT

# Everything that MMEngine's modules and their classes hold, before and after.
CHANGES = """
import sys
import mmengine.runner, mmengine.hub, mmengine.evaluator, mmengine.visualization
import mmpretrain.apis, mmpretrain.models
from mmengine.runner.checkpoint import CheckpointLoader

def held():
    things = {}
    for name, module in sorted(sys.modules.items()):
        if name.split('.')[0] != 'mmengine' or module is None:
            continue
        for key, value in vars(module).items():
            things[name, key] = id(value)
            if isinstance(value, type) and value.__module__.startswith('mmengine'):
                for attribute, member in list(vars(value).items()):
                    if callable(member) or isinstance(member, (dict, classmethod)):
                        things[name, key, attribute] = id(member)
    return things

before, schemes = held(), dict(CheckpointLoader._schemes)
import mmmixmim, mmmixmim.models, mmmixmim.engine, mmmixmim.datasets
after = held()
print(sorted(key for key in before if before[key] != after.get(key)))
new = CheckpointLoader._schemes
print(sorted(new))
print(sorted(key for key in new if schemes.get(key) is not new[key]))
"""


def test_imports_run_down():
    """As ``lint-imports`` checks by the contracts in pyproject.toml."""
    status = lint_imports(config_filename=str(ROOT / 'pyproject.toml'), cache_dir=None)
    assert status == 0


def test_importing_changes_one_thing_in_mmengine():
    """How checkpoints are loaded, from wherever, as docs/safety.md says."""
    result = subprocess.run(
        [sys.executable, '-c', CHANGES], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    changed, schemes, replaced = map(eval, result.stdout.splitlines()[-3:])
    # MMEngine sorts its loaders into a new dict at every registration.
    assert {key[1:] for key in changed} <= {('CheckpointLoader', '_schemes')}
    assert replaced == schemes
