"""The check for optional packages, with the imports really blocked."""

import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmixmim.runtime import check_dependencies
from mmmixmim.validation import MissingDependencyError

ROOT = Path(__file__).parents[2]
DET = "default_scope = 'mmdet'\nmodel = dict(type='RetinaNet')"


def run_without(module: str, *command, cwd: Path) -> subprocess.CompletedProcess:
    """Run a script in a process that cannot import ``module``."""
    code = (
        f'import runpy, sys; sys.modules[{module!r}] = None; '
        f'sys.argv = {list(map(str, command))!r}; '
        f'runpy.run_path(sys.argv[0], run_name="__main__")'
    )
    return subprocess.run(
        [sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True
    )


def train_without(module: str, config: Path) -> subprocess.CompletedProcess:
    train = ROOT / 'tools' / 'train.py'
    return run_without(module, train, config, cwd=config.parent)


@pytest.mark.parametrize(
    ('module', 'text', 'command'),
    [
        ('mmdet', DET, 'mmdet'),
        ('mmdet', "_base_ = 'mmdet::_base_/default_runtime.py'", 'mmdet'),
        ('mmcv._ext', DET, 'mmcv'),
    ],
    ids=['package', 'base', 'ops'],
)
def test_train_names_what_is_missing(tmp_path, module, text, command):
    pytest.importorskip('mmdet')
    config = tmp_path / 'config.py'
    config.write_text(text)

    result = train_without(module, config)

    last_line = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert last_line.startswith('error: the config uses mmdet')
    assert 'install' in last_line and command in last_line.split('Install it with: ')[1]


@pytest.mark.parametrize(
    ('module', 'config'),
    [
        ('mmseg', 'ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'),
        ('mmdet', 'coco/mask-rcnn_mixmim-base_fpn_32xb2-amp-lsj-100e_coco.py'),
        ('mmcv._ext', 'shapes/mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes.py'),
    ],
)
def test_train_names_what_our_configs_miss(module, config):
    pytest.importorskip('mmdet')
    result = train_without(module, ROOT / 'configs' / config)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    scope = 'mmseg' if 'ade20k' in config else 'mmdet'
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith(f'error: the config uses {scope}, which needs ')
    assert 'Install it with: pip install' in last_line


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(
    'config',
    [
        lambda scope: dict(default_scope=scope),
        lambda scope: dict(model=dict(heads=[dict(type=f'{scope}.AnyHead')])),
        lambda scope: dict(model=dict(type='AnyModel', _scope_=scope)),
    ],
    ids=['default scope', 'prefix', 'scope'],
)
def test_scopes_are_found_anywhere(monkeypatch, scope, config):
    monkeypatch.setitem(sys.modules, scope, None)

    with pytest.raises(MissingDependencyError, match=f'needs {scope} .*Install it'):
        check_dependencies(Config(config(scope)))


def test_own_configs_need_neither(monkeypatch):
    for module in ('mmdet', 'mmseg', 'mmcv.ops'):
        monkeypatch.setitem(sys.modules, module, None)

    check_dependencies(
        Config(dict(default_scope='mmmixmim', model=dict(type='mmpretrain.Any')))
    )


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_what_is_installed_passes(scope):
    pytest.importorskip(scope)
    pytest.importorskip('mmcv.ops')

    check_dependencies(Config(dict(default_scope=scope)))


@pytest.mark.parametrize(
    'script, module, message',
    [
        ('transfer.py', 'mmdet', 'this needs mmdet'),
        ('transfer.py', 'mmcv._ext', "needs mmcv's compiled ops"),
        ('transfer.py', 'mmseg', 'this needs mmseg'),
        ('make_shapes.py', 'pycocotools', 'needs pycocotools'),
    ],
)
def test_scripts_say_at_once_what_is_missing(tmp_path, script, module, message):
    result = run_without(module, ROOT / 'tools' / script, cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
