"""mim finds configs and scripts in an editable install and in a wheel."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmixmim.synthetic import write_dataset

from .scripts import free_port

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / 'configs' / 'digits'
(PRETRAIN,) = DIGITS.glob('mixmim_mixmim-tiny_*_digits.py')
(FINETUNE,) = DIGITS.glob('mixmim-tiny_*_digits.py')
ONE_ITERATION = [
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_dataloader.num_batch_per_epoch=1',
    'train_dataloader.num_workers=0',
]
HOOK = """
from mmmixmim.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class CountingHook(Hook):
    def after_train_iter(self, runner, *args, **kwargs):
        print('counted', runner.iter + 1)
"""


def run(command: list, cwd: Path, **environment: str) -> str:
    """Run a command outside the checkout and return its output."""
    environment |= {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope='module')
def editable_python() -> Path:
    """The tests' interpreter, if this checkout is installed in it."""
    try:
        origin = json.loads(distribution('mmmixmim').read_text('direct_url.json'))
    except (PackageNotFoundError, TypeError):
        pytest.skip('mmmixmim is not installed with pip install -e')
    if origin['url'] != ROOT.as_uri() or not origin['dir_info'].get('editable'):
        pytest.skip('another mmmixmim is installed')
    return Path(sys.executable)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """A wheel built from the source distribution of a copy of the checkout."""
    folder = tmp_path_factory.mktemp('build')
    others = shutil.ignore_patterns('.*', 'work_dirs', 'data', 'build', 'dist')
    shutil.copytree(ROOT, folder / 'source', ignore=others)
    code = 'from setuptools.build_meta import build_sdist; build_sdist("..")'
    run([sys.executable, '-c', code], cwd=folder / 'source')
    (sdist,) = folder.glob('*.tar.gz')
    pip_wheel = ['wheel', '--no-deps', '--no-index', '--no-build-isolation', sdist]
    run([sys.executable, '-m', 'pip', *pip_wheel], cwd=folder)
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def wheel_python(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel; the tests' environment has the other packages."""
    venv = tmp_path_factory.mktemp('venv')
    python = venv / 'bin' / 'python'
    run([sys.executable, '-m', 'venv', '--without-pip', venv], cwd=venv)
    install = ['install', '--no-deps', '--no-index', wheel]
    run([sys.executable, '-m', 'pip', '--python', python, *install], cwd=venv)
    site = next(venv.glob('lib/python*/site-packages'))
    # .pth files in these folders are not processed, so editable installs of the
    # tests' environment stay hidden.
    others = [path for path in sys.path if path.endswith('site-packages')]
    (site / 'others.pth').write_text('\n'.join(others))
    code = 'import mmmixmim; print(mmmixmim.__file__)'
    assert str(site) in run([python, '-c', code], cwd=venv)
    return python


def test_checkout_holds_configs_once():
    """With a .mim link, as in other OpenMMLab projects, mim finds configs twice."""
    assert not (ROOT / 'mmmixmim' / '.mim').exists()


@pytest.mark.slow
def test_wheel_holds_package_and_companion(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    companion = '+mmmixmim/.mim/'
    assert {name.split('/')[0].split('-')[0] for name in names} == {
        'mmmixmim',
        '+mmmixmim',
    }
    for path in ('model-index.yml', 'tools/train.py', 'tools/dist_test.sh'):
        assert companion + path in names
    package = (ROOT / 'mmmixmim').rglob('*.*')
    package = [path for path in package if path.suffix in ('.py', '.css', '.j2')]
    for path in [*(ROOT / 'configs').rglob('*.py'), *package]:
        name = path.relative_to(ROOT).as_posix()
        assert (companion + name if name.startswith('configs') else name) in names


@pytest.mark.slow
def test_mim_trains_in_two_processes(wheel_python, tmp_path):
    """On a CPU where there is no GPU."""
    launcher = ['--launcher', 'pytorch', '--gpus', '2', '--port', free_port()]
    train = ['train', 'mmmixmim', PRETRAIN.name, *launcher, *ONE_ITERATION]
    output = run([wheel_python, '-m', 'mim', *train], cwd=tmp_path)
    assert 'GPU number: 2' in output


@pytest.mark.slow
@pytest.mark.parametrize(
    'install, config',
    [('editable_python', FINETUNE), ('wheel_python', FINETUNE.name)],
    ids=['editable-path', 'wheel-name'],
)
def test_mim_trains_and_tests(install, config, request, tmp_path):
    mim = [request.getfixturevalue(install), '-m', 'mim']

    (tmp_path / 'modules').mkdir()
    (tmp_path / 'modules' / 'my_hooks.py').write_text(HOOK)
    (tmp_path / 'hooked.py').write_text(
        f"_base_ = {str(FINETUNE)!r}\ncustom_hooks = [dict(type='CountingHook')]\n"
    )
    train = [*mim, 'train', 'mmmixmim', tmp_path / 'hooked.py', *ONE_ITERATION]
    output = run(
        [*train, 'custom_imports.imports=[my_hooks]'],
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / 'modules'),
    )
    assert re.findall(r'counted \d+', output) == ['counted 1']
    checkpoint = tmp_path / 'work_dirs' / 'hooked' / 'epoch_1.pth'
    test = ['test', 'mmmixmim', config, '--checkpoint', checkpoint]
    assert 'accuracy/top1' in run([*mim, *test], cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    'package, task',
    [
        ('mmdetection', 'mask-rcnn'),
        ('mmsegmentation', 'upernet'),
        ('mmmixmim', 'mask-rcnn'),
        ('mmmixmim', 'upernet'),
    ],
)
def test_mim_trains_detection_and_segmentation(
    editable_python, shapes, package, task, tmp_path
):
    """With our scripts, and with those of mmdet and mmsegmentation."""
    (config,) = (ROOT / 'configs' / 'shapes').glob(f'*{task}*.py')
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    for split in ('train', 'val', 'test'):
        options.append(f'{split}_dataloader.dataset.data_root={shapes}')
        options.append(f'{split}_dataloader.num_workers=0')
        options.append(f'{split}_dataloader.persistent_workers=False')
    if task == 'mask-rcnn':
        truth = shapes / 'annotations' / 'instances_val.json'
        options += [
            f'val_evaluator.ann_file={truth}',
            f'test_evaluator.ann_file={truth}',
        ]
    name = config if package != 'mmmixmim' else config.name
    command = ['train', package, name, '--work-dir', 'work', '--cfg-options', *options]
    output = run([editable_python, '-m', 'mim', *command], cwd=tmp_path)
    assert 'coco/segm_mAP' in output if task == 'mask-rcnn' else 'mIoU' in output


@pytest.fixture(scope='module')
def shapes(tmp_path_factory) -> Path:
    """A small dataset of drawn shapes."""
    root = tmp_path_factory.mktemp('shapes')
    write_dataset(root, dict(train=4, val=2))
    return root


@pytest.mark.slow
@pytest.mark.parametrize('install', ['editable_python', 'wheel_python'])
def test_mim_lists_models(install, request, tmp_path):
    mim = [request.getfixturevalue(install), '-m', 'mim']

    assert PRETRAIN.stem in run([*mim, 'search', 'mmmixmim'], cwd=tmp_path)


@pytest.mark.slow
def test_mim_downloads(wheel_python, server, tmp_path):
    """A published checkpoint, served locally under the same path."""
    name = 'mixmim-base_mixmim-300e-pre_3rdparty-mmpretrain_in1k'
    (site,) = wheel_python.parents[1].glob('lib/python*/site-packages')
    metafile = site / '+mmmixmim' / '.mim' / 'configs' / 'mixmim' / 'metafile.yml'
    text = metafile.read_text()
    (folder,) = set(re.findall('https://mmassets.*/mixmim/', text))
    weights = re.search(f'{name}.*?Weights: {folder}(.*?)\n', text, re.DOTALL)[1]
    (tmp_path / 'remote' / weights).parent.mkdir(parents=True)
    (tmp_path / 'remote' / weights).write_bytes(b'some weights')

    metafile.write_text(text.replace(folder, server(tmp_path / 'remote')))
    try:
        options = ['download', 'mmmixmim', '--config', name, '--dest', 'here']
        run([wheel_python, '-m', 'mim', *options], cwd=tmp_path)
    finally:
        metafile.write_text(text)
    downloaded = tmp_path / 'here' / Path(weights).name
    assert downloaded.read_bytes() == b'some weights'
    assert (
        Config.fromfile(tmp_path / 'here' / f'{name}.py').model.head.num_classes == 1000
    )


@pytest.mark.slow
def test_wheel_registers_models(wheel_python, tmp_path):
    code = "import mmmixmim, mmpretrain; print(mmpretrain.list_models('mixmim*'))"
    output = run([wheel_python, '-c', code], cwd=tmp_path)
    assert PRETRAIN.stem in output and 'mixmim-large_8xb2048-linear' in output
