"""What tools/train.py, tools/test.py and their distributed starters have in common."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmmixmim.registry import TRANSFORMS
from mmmixmim.runtime import add_run_arguments, load_config, one_line_errors

ROOT = Path(__file__).parents[2]
(PRETRAIN,) = (ROOT / 'configs' / 'digits').glob('mixmim_mixmim-tiny_*_digits.py')
(CLASSIFY,) = (ROOT / 'configs' / 'digits').glob('mixmim-tiny_*_digits.py')
ONE_ITERATION = (
    'train_cfg.max_epochs=1',
    'train_dataloader.num_batch_per_epoch=1',
    'train_dataloader.num_workers=0',
)
on_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without')


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    starter = [] if script.endswith('.sh') else [sys.executable]
    command = [*starter, ROOT / 'tools' / script, *arguments]
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, 'PYTHON': sys.executable, 'PORT': '29571'},
        capture_output=True,
        text=True,
    )


def load(config: Path, *options: str):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    return load_config(parser.parse_args([str(config), *options]))


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config of our scope with one bare loader."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    path = tmp_path / 'some_name.py'
    path.write_text(
        "default_scope = 'mmmixmim'\ntrain_dataloader = dict(num_workers=2)"
    )
    return path


def test_saved_config_is_no_second_one_of_its_name(config, tmp_path):
    """mim looks for configs by name in the whole checkout, work_dirs included."""
    cfg = load(config)
    assert cfg.filename == 'config.py' and cfg.default_scope == 'mmmixmim'
    assert 'some_name' in cfg.text or 'num_workers=2' in cfg.text


def test_work_dir_comes_from_option_then_config_then_name(config):
    assert load(config).work_dir == os.path.join('work_dirs', 'some_name')
    assert load(config, '--cfg-options', 'work_dir=a').work_dir == 'a'
    assert (
        load(config, '--cfg-options', 'work_dir=a', '--work-dir', 'b').work_dir == 'b'
    )


def test_loaders_fit_the_machine_and_the_number_of_workers(config):
    loader = load(config).train_dataloader
    assert loader.persistent_workers
    assert loader.pin_memory == torch.cuda.is_available()
    assert loader.collate_fn.type == 'default_collate'

    options = ['num_workers=0', 'persistent_workers=True']
    options = [f'train_dataloader.{option}' for option in options]
    loader = load(config, '--cfg-options', *options).train_dataloader
    assert not loader.persistent_workers


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        pytest.param(
            ['train.py', PRETRAIN, '--amp'],
            'needs a GPU.*leave out --amp',
            marks=on_cpu,
        ),
        (['train.py', PRETRAIN, '--auto-scale-lr'], 'needs auto_scale_lr'),
        (['train.py', PRETRAIN, '--cfg-options', 'model.type=Nix'], 'Nix is not in'),
        (['train.py', 'nix.py'], "'nix.py'"),
        (['test.py', PRETRAIN, 'nix.pth'], 'has no test_dataloader'),
        (['test.py', CLASSIFY, 'nix.pth'], 'nix.pth can not be found'),
    ],
    ids=['amp', 'scale', 'type', 'config', 'pretraining', 'checkpoint'],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path):
    result = run(*arguments, cwd=tmp_path)

    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith('error: ')
    assert re.search(message, last_line)


@on_cpu
@pytest.mark.slow
def test_two_processes_train_and_test_on_a_cpu(tmp_path):
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_ITERATION]
    result = run('dist_train.sh', CLASSIFY, 2, *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout

    out = tmp_path / 'predictions.pkl'
    arguments = [CLASSIFY, tmp_path / 'epoch_1.pth', 2, '--out', out]
    result = run('dist_test.sh', *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout
    assert out.is_file()


def test_image_that_mmcv_cannot_read_is_named(tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    load = TRANSFORMS.build(dict(type='LoadImageFromFile'))
    with pytest.raises(
        SystemExit, match='error: the image .*broken.jpg cannot be read'
    ):
        with one_line_errors():
            load(dict(img_path=str(tmp_path / 'broken.jpg')))


class Missing(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return open('/nowhere/a.jpg')


@pytest.mark.parametrize('workers', [0, 1])
def test_missing_file_is_one_line_from_a_worker_too(workers):
    loader = torch.utils.data.DataLoader(Missing(), num_workers=workers)
    with pytest.raises(SystemExit) as error:
        with one_line_errors():
            next(iter(loader))
    (line,) = str(error.value).splitlines()
    assert line.startswith('error: ') and "'/nowhere/a.jpg'" in line
