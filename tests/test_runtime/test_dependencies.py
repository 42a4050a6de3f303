"""Checks of optional packages, with imports actually blocked."""

import subprocess
import sys

import pytest
from mmengine.config import Config, DictAction

from mmmixmim.runtime import check_dependencies, require
from mmmixmim.runtime.dependencies import prepare_backends
from mmmixmim.validation import MissingDependencyError, UserError

from ..conftest import ROOT
from ..scripts import TOOLS, call, error_line

DET = "default_scope = 'mmdet'\nmodel = dict(type='RetinaNet')"


@pytest.fixture
def block(monkeypatch):
    """Block the import of a module until the test ends."""

    def block(module):
        # Drop loaded modules so that they are imported again; restored afterwards.
        package = 'mmcv.ops' if module == 'mmcv._ext' else module
        for name in list(sys.modules):
            if name == package or name.startswith(f'{package}.'):
                monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, module, None)

    return block


@pytest.mark.parametrize('module', ['mmdet', 'mmcv._ext'])
def test_missing_package_in_a_new_process(tmp_path, module):
    """A fresh interpreter has not imported the package before."""
    (tmp_path / 'config.py').write_text(DET)
    path = str(TOOLS / 'train.py')
    code = (
        f'import runpy, sys; sys.modules[{module!r}] = None; '
        f'sys.argv = [{path!r}, "config.py"]; '
        f'runpy.run_path({path!r}, run_name="__main__")'
    )
    command = [sys.executable, '-c', code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    what = "mmcv's compiled ops" if module == 'mmcv._ext' else module
    assert f'error: the config uses mmdet, which needs {what} (' in error_line(result)


@pytest.mark.parametrize(
    ('module', 'text', 'command'),
    [
        ('mmdet', DET, 'mmdet'),
        ('mmdet', "_base_ = 'mmdet::_base_/default_runtime.py'", 'mmdet'),
        ('mmcv._ext', DET, 'mmcv'),
    ],
    ids=['package', 'base', 'ops'],
)
def test_train_names_what_is_missing(tmp_path, block, module, text, command):
    pytest.importorskip('mmdet')
    config = tmp_path / 'config.py'
    config.write_text(text)

    block(module)

    line = error_line(call('train.py', config, cwd=tmp_path))

    assert line.startswith('error: the config uses mmdet')
    assert 'install' in line and command in line.split('Install it with: ')[1]


@pytest.mark.parametrize(
    ('module', 'config'),
    [
        ('mmseg', 'ade20k/mixmim-base_upernet_8xb2-amp-160k_ade20k-512x512.py'),
        ('mmdet', 'coco/mask-rcnn_mixmim-base_fpn_32xb2-amp-lsj-100e_coco.py'),
        ('mmcv._ext', 'shapes/mask-rcnn_mixmim-tiny_fpn_1xb8-12e_shapes.py'),
    ],
)
def test_train_names_what_our_configs_miss(tmp_path, block, module, config):
    pytest.importorskip('mmdet')
    block(module)
    line = error_line(call('train.py', ROOT / 'configs' / config, cwd=tmp_path))
    scope = 'mmseg' if 'ade20k' in config else 'mmdet'
    assert line.startswith(f'error: the config uses {scope}, which needs ')
    assert 'Install it with: pip install' in line


@pytest.mark.parametrize('forks', [True, False])
def test_command_fits_what_is_installed(monkeypatch, block, forks):
    """Forks and upstream share module names: installing one overwrites the other."""
    monkeypatch.setattr('mmmixmim.runtime.dependencies._has_forks', lambda: forks)
    block('mmseg')
    with pytest.raises(MissingDependencyError) as error:
        require('mmseg')
    package = 'pip install onedl-mmsegmentation'
    package = package if forks else 'mim install mmsegmentation'
    assert str(error.value).endswith(f'Install it with: {package}')


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
def test_scripts_say_at_once_what_is_missing(tmp_path, block, script, module, message):
    block(module)
    assert message in error_line(call(script, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def with_backends(option):
    """A config whose backends come from the command line."""
    cfg = Config(dict(visualizer=dict(type='Visualizer', vis_backends=[])))
    cfg.merge_from_dict({'visualizer.vis_backends': DictAction._parse_iterable(option)})
    return cfg


@pytest.mark.parametrize(
    'option, types',
    (
        ('[LocalVisBackend,TensorboardVisBackend]', ['Local', 'Tensorboard']),
        ('mmengine.LocalVisBackend', ['mmengine.Local']),
    ),
)
def test_backends_are_named_on_the_command_line(option, types):
    cfg = with_backends(option)
    prepare_backends(cfg)
    backends = [dict(type=f'{name}VisBackend') for name in types]
    assert cfg.visualizer.vis_backends == backends


def test_the_option_of_the_page_on_watching_names_backends():
    page = (ROOT / 'docs' / 'watching.md').read_text()
    option = page.split('visualizer.vis_backends=')[1].split("'")[1]
    cfg = with_backends(option)
    prepare_backends(cfg)
    assert len(cfg.visualizer.vis_backends) == 2


def test_a_backend_that_is_no_name_is_one_line():
    with pytest.raises(UserError, match='must be names, such as .*Tensorboard'):
        prepare_backends(with_backends("[dict(type='LocalVisBackend')]"))


def test_a_backend_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(MissingDependencyError, match='pip install tensorboard'):
        prepare_backends(with_backends('TensorboardVisBackend'))
