"""Pretraining by one command."""

import ast
import html
import json
import multiprocessing
import re
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.device import utils
from PIL import Image

import mmmixmim
from mmmixmim.cli.reconstruct import reconstruct
from mmmixmim.cli.run import Run
from mmmixmim.cli.settings import Choices
from mmmixmim.cli.training import goes_on
from mmmixmim.datasets.labelled import labelled_folder_of
from mmmixmim.engine import ProgressLineHook
from mmmixmim.engine.hooks.preemption import INTERRUPTED
from mmmixmim.registry import DATASETS, MODELS
from mmmixmim.validation import UserError

from ..conftest import ROOT
from ..scripts import call, passed
from ..scripts import run as start
from ..test_datasets.test_readers.test_opening import write_dicom
from .conftest import error_line, mixmim, picture, write_pictures


def test_a_folder_becomes_a_run(pretrained):
    out, printed = pretrained
    assert '72 images' in printed and '2 folders, whose names are not used' in printed
    assert re.search(r'epochs +2 +as given', printed)
    assert re.search(r'held_out +16 +22% of the images; the least that', printed)
    assert re.search(r'This takes less than a minute at .*, which is a guess', printed)
    assert re.search(r'epoch 2/2 +100%  loss [\d.]+  held-out loss [\d.]+', printed)
    assert 'Config:' not in printed and 'mmengine' not in printed
    for name in ('epoch_2.pth', 'report.html', 'reconstruction.png', 'scan.json'):
        assert (out / name).stat().st_size
    (log,) = out.glob('*/*.log')
    assert 'System environment' in log.read_text()


def test_the_config_says_why(pretrained):
    out, printed = pretrained
    text = (out / 'config.py').read_text()
    chosen = json.loads((out / 'run.json').read_text())['settings']
    assert {'model', 'batch_size', 'lr', 'epochs', 'precision'} < set(chosen)
    for name, value in chosen.items():
        assert re.search(rf'^# - {name} {re.escape(str(value))}: .+', text, re.M)
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.train_cfg.max_epochs == 2
    assert cfg.optim_wrapper.optimizer.lr == chosen['lr']
    assert cfg.model.data_preprocessor.non_blocking
    assert cfg.default_hooks.unreadable_images.max_share == 0.01
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.dataset.pipeline[0].ignore_empty


def code_of_usage(heading: str, out: Path) -> str:
    """The Python code below a heading of docs/usage.md, for a run of two epochs."""
    page = (ROOT / 'docs' / 'usage.md').read_text()
    section = re.split(r'\n##', page.partition(heading)[2])[0]
    code = '\n'.join(re.findall(r'```python\n(.*?)```', section, re.DOTALL))
    return code.replace('runs/first', str(out)).replace('epoch_100', 'epoch_2')


def test_mmpretrain_loads_the_encoder_as_the_page_on_usage_says(
    pretrained, photos, tmp_path
):
    """In a new process, where nothing has set the scope of the registries."""
    out, _ = pretrained
    photo = next(path for path in sorted(photos.rglob('*')) if path.is_file())
    code = code_of_usage('## Python API', out).replace('image.png', str(photo))
    code += "\ntorch.save((model.state_dict(), features), 'found.pth')\n"
    (tmp_path / 'page.py').write_text(code)
    passed(start(tmp_path / 'page.py', cwd=tmp_path, PYTHONPATH=str(ROOT)))
    found, features = torch.load(tmp_path / 'found.pth')
    weights = torch.load(out / 'epoch_2.pth', weights_only=False)['state_dict']
    for name, value in found.items():
        assert torch.equal(value, weights[name]), name
    assert features.shape == (1, 128)


def test_a_backbone_of_other_models_as_the_page_on_usage_says(pretrained):
    out, _ = pretrained
    found = {}
    exec(code_of_usage('### In other models', out), found)
    backbone = found['backbone']
    trained = Config.fromfile(out / 'config.py').model.backbone
    assert set(trained) < set(backbone) and trained.arch == backbone['arch']
    backbone |= dict(img_size=trained.img_size, patch_size=trained.patch_size)
    encoder = MODELS.build(backbone)
    encoder.init_weights()
    weights = torch.load(out / 'epoch_2.pth', weights_only=False)['state_dict']
    name = 'layers.2.blocks.0.attn.qkv.weight'
    assert torch.equal(encoder.state_dict()[name], weights[f'backbone.{name}'])
    maps = encoder(torch.rand(1, 3, 48, 80))
    assert [each.shape[1] for each in maps] == found['neck']['in_channels']


def test_tools_train_repeats_the_run(pretrained, tmp_path):
    out, _ = pretrained
    config = out / 'config.py'
    passed(call('train.py', config, '--work-dir', tmp_path / 'again', cwd=tmp_path))
    first, again = (
        torch.load(folder / 'epoch_2.pth', weights_only=False)['state_dict']
        for folder in (out, tmp_path / 'again')
    )
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_interrupted_run_goes_on_with_the_same_bits(
    pretrained, photos, tmp_path, monkeypatch
):
    """Interrupted like by Ctrl-C, in the middle of the second epoch of 7 iterations."""
    out = tmp_path / 'a run'
    command = ['pretrain', photos, '--out', out, '--epochs', 2]
    shown = ProgressLineHook.after_train_iter

    def interrupt(self, runner, *args, **kwargs):
        shown(self, runner, *args, **kwargs)
        if runner.iter == 9:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressLineHook, 'after_train_iter', interrupt)
        code, printed, err = mixmim(*command)
    assert code == INTERRUPTED, printed + err
    saved = torch.load(out / 'latest.pth', weights_only=False)['meta']
    assert (saved['epoch'], saved['iter']) == (1, 10)
    again = shlex.split(Run.load(out).invocation)
    assert again[:3] == ['python', '-m', 'mmmixmim']
    page = html.unescape((out / 'report.html').read_text())
    assert 'by the same command again' in page and shlex.join(again) in page

    line = error_line('pretrain', photos, '--out', out)
    assert 'epochs is 2 there, but not given here. Choose another --out, or' in line
    assert line.endswith(f'go on with it: {shlex.join(again)}')

    code, printed, err = mixmim(*again[3:])
    assert code == 0, err
    assert 'Going on after latest.pth' in printed and 'Settings' not in printed
    assert 'backend' not in printed  # how MMEngine loads it
    assert 'resumed epoch: 1, iter: 10' in max(out.glob('*/*.log')).read_text()
    assert Run.load(out).finished and not (out / 'latest.pth').exists()
    assert '# - epochs 2: as given' in (out / 'config.py').read_text()
    expected, found = (
        torch.load(folder / 'epoch_2.pth', weights_only=False)
        for folder in (pretrained[0], out)
    )
    for name, tensor in expected['state_dict'].items():
        assert torch.equal(tensor, found['state_dict'][name])
    for name, state in expected['optimizer']['state'].items():
        for key, tensor in state.items():
            assert torch.equal(tensor, found['optimizer']['state'][name][key])


def test_the_commands_that_are_printed_next_work(tmp_path):
    """On images that are labelled, as those of the demo are."""
    for part, count in (('train', 8), ('val', 2)):
        for label in ('sea', 'hill'):
            write_pictures(tmp_path / 'data' / part / label, count)
    options = ['--out', tmp_path / 'a run', '--epochs', 1]
    code, printed, err = mixmim('pretrain', tmp_path / 'data' / 'train', *options)
    assert code == 0, err
    probe, finetune = map(shlex.split, printed.splitlines()[-2:])
    for command in (probe, [*finetune, '--dry-run']):
        code, printed, err = mixmim(*command[3:])
        assert code == 0, err
        assert '16 images to train on and 4 to validate' in printed
    assert (tmp_path / 'a run-probe' / 'mistakes.json').exists()
    page = html.unescape((tmp_path / 'a run' / 'report.html').read_text())
    assert f'probe {tmp_path}/data --from' in page and '/data/labelled' not in page


def test_the_demo_knows_its_labels(tmp_path):
    options = ['--out', tmp_path / 'run', '--dry-run']
    code, printed, err = mixmim('pretrain', '--demo', *options)
    assert code == 0, err
    assert '1,248 images' in printed and re.search('epochs +25 +as given', printed)
    assert labelled_folder_of(tmp_path / 'digits' / 'train') == tmp_path / 'digits'
    assert labelled_folder_of(tmp_path / 'digits' / 'val') is None


def test_a_finished_run_is_left_alone(pretrained, photos):
    out, _ = pretrained
    before = (out / 'epoch_2.pth').stat().st_mtime_ns
    code, printed, _ = mixmim('pretrain', photos, '--out', out, '--epochs', 2)
    assert code == 0 and 'come to its end' in printed
    assert (out / 'epoch_2.pth').stat().st_mtime_ns == before


def test_a_run_whose_images_are_gone(tmp_path):
    write_pictures(tmp_path / 'data', 8)
    out = tmp_path / 'run'
    command = ['pretrain', tmp_path / 'data', '--out', out, '--epochs', 1]
    assert mixmim(*command)[0] == 0
    run = Run.load(out)
    run.finished = False
    run.save()
    (tmp_path / 'data').rename(tmp_path / 'elsewhere')
    (tmp_path / 'data').mkdir()  # where a disk was mounted
    code, _, err = mixmim(*command)
    assert code == 1 and 'bring them back, then give the same command again' in err
    line = error_line('reconstruct', out)
    assert line.endswith('bring them back, or name others with --images FOLDER.')
    options = ['--images', tmp_path / 'elsewhere', '--num', 4]
    code, _, err = mixmim('reconstruct', out, *options)
    assert code == 0, err


@pytest.mark.parametrize(
    'options, said',
    [
        (('--seed', -1), '--seed must be an int between 0 and 4294967295, got -1'),
        (('--seed', 2**32), '--seed must be an int between 0 and 4294967295'),
        (('--images', 'nowhere'), "There is no folder 'nowhere': check the path."),
        (('--images', __file__), 'is a file, expected a folder of images.'),
    ],
)
def test_what_cannot_be_reconstructed(pretrained, options, said):
    assert said in error_line('reconstruct', pretrained[0], *options)


@pytest.mark.parametrize('num', [0, -2, 2.0, 'a'])
def test_the_number_of_reconstructions_is_a_positive_int(num, pretrained):
    with pytest.raises(UserError, match='--num must be a positive int'):
        reconstruct(pretrained[0], num=num)


def test_an_image_without_a_partner_is_not_drawn(pretrained, tmp_path):
    """In its row of mixtures it would show whole."""
    for count in (1, 4, 5):
        write_pictures(tmp_path / f'{count}', count)

    def width(count, num):
        images, out = tmp_path / f'{count}', tmp_path / 'picture.png'
        return Image.open(reconstruct(pretrained[0], images, out, num)).width

    assert width(5, 3) == width(5, 4) == width(5, 8) == width(4, 8) > width(5, 1)
    line = error_line('reconstruct', pretrained[0], '--images', tmp_path / '1')
    assert 'A mixture needs 2 images, and there are 1' in line


def test_macs_reconstruct_on_the_cpu(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(utils, 'DEVICE', 'mps')
    assert reconstruct(pretrained[0], out=tmp_path / 'picture.png').is_file()


def test_a_link_of_a_run_leads_to_no_picture(pretrained, tmp_path):
    run, mine = tmp_path / 'run', tmp_path / 'mine.txt'
    shutil.copytree(pretrained[0], run)
    mine.write_text('keep')
    (run / 'reconstruction.png').unlink(missing_ok=True)
    (run / 'reconstruction.png').symlink_to(mine)
    write_pictures(tmp_path / 'images', 2)
    picture = reconstruct(run, tmp_path / 'images', num=2)
    assert not picture.is_symlink() and Image.open(picture).width
    assert mine.read_text() == 'keep'


def test_interruptions_say_how_to_go_on(capsys):
    with pytest.raises(KeyboardInterrupt) as stopped, goes_on():
        raise KeyboardInterrupt
    assert stopped.value.status == 130
    assert 'The same command goes on' in capsys.readouterr().out


@pytest.mark.parametrize('method', [None, 'spawn'])
def test_other_processes_start_as_before_the_training(method):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        with goes_on():
            multiprocessing.set_start_method('fork', force=True)  # as MMEngine does
        assert multiprocessing.get_start_method(allow_none=True) == method
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_a_dry_run_trains_nothing(photos, tmp_path):
    out = tmp_path / 'dry'
    code, printed, _ = mixmim('pretrain', photos, '--out', out, '--dry-run')
    assert code == 0 and 'dry run' in printed and 'batch_size' in printed
    assert {path.name for path in out.iterdir()} == {'.lock', 'scan.json'}
    scan = (out / 'scan.json').stat().st_mtime_ns
    mixmim('pretrain', photos, '--out', out, '--dry-run')
    assert (out / 'scan.json').stat().st_mtime_ns == scan  # cached


@pytest.mark.parametrize(
    'slope, said',
    [
        (None, 'channels 1; 16-bit\n'),
        ((2, -1024), 'channels 1; 32-bit floats, after slope and intercept\n'),
    ],
)
def test_the_bits_of_dicom_are_those_of_its_values(slope, said, tmp_path):
    (tmp_path / 'data').mkdir()
    for number in range(2):
        pixels = picture(number, (40, 40))[..., 0].astype('int16')
        write_dicom(tmp_path / 'data' / f'{number}.dcm', pixels, slope)
    options = ['--out', tmp_path / 'run', '--dry-run']
    for _ in range(2):  # the second time from the scan that the first one has saved
        code, printed, err = mixmim('pretrain', tmp_path / 'data', *options)
        assert code == 0 and said in printed, printed + err


def test_python_trains_on_a_list_from_the_weights_of_a_run(
    pretrained, tmp_path, capsys
):
    write_pictures(tmp_path / 'some', 6)
    lines = [f'some/{path.name},x' for path in (tmp_path / 'some').iterdir()]
    (tmp_path / 'list.csv').write_text('\n'.join(['path,label', *lines]))
    (tmp_path / 'some' / 'unlisted.png').write_bytes(b'no image')
    start = dict(start=pretrained[0], lr=0.0)
    out = mmmixmim.pretrain(tmp_path / 'list.csv', tmp_path / 'run', epochs=1, **start)
    assert 'labels, which are not used' in capsys.readouterr().out
    assert len((out / 'images.txt').read_text().splitlines()) == 6
    before, after = (
        torch.load(path, weights_only=False)['state_dict']
        for path in (pretrained[0] / 'epoch_2.pth', out / 'epoch_1.pth')
    )
    encoder = [name for name in before if name.startswith('backbone.')]
    assert all(torch.equal(before[name], after[name]) for name in encoder)


@pytest.mark.parametrize('given', ['nan', float('nan'), np.float32('nan')])
def test_a_value_without_data_is_written_as_text(given, tmp_path):
    run = Run.open('pretrain', data='a', out=tmp_path, no_data=given)
    assert run.arguments['no_data'] == 'nan'
    run.begin('', Choices(), {})
    assert Run.open('pretrain', data='a', out=tmp_path, no_data='nan').exists


@pytest.mark.parametrize('given', ['0', 0, 0.0, np.float32(0)])
def test_a_value_without_data_may_be_text_or_a_number(given, tmp_path):
    run = Run.open('pretrain', data='a', out=tmp_path, no_data=given)
    assert run.arguments['no_data'] == '0.0'


@pytest.mark.parametrize('command', ['pretrain', 'finetune'])
@pytest.mark.parametrize('name', ['"""; open("made", "w"); """', r'C:\new\x'])
def test_the_name_of_a_folder_is_no_code(command, name, tmp_path, monkeypatch):
    def interrupt(run):  # the config is written
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    for label in ('a', 'b'):
        write_pictures(tmp_path / name / label, 8)
    monkeypatch.setattr(f'mmmixmim.cli.{command}.train', interrupt)
    code, _, err = mixmim(command, tmp_path / name, '--out', 'run', '--epochs', 1)
    assert code == 130, err
    config = Path('run', 'config.py').read_text()
    assert name in ast.get_docstring(ast.parse(config))
    Config.fromfile('run/config.py')
    assert not Path('made').exists()


@pytest.mark.parametrize('listed', [False, True])
def test_images_that_come_or_go_while_a_run_is_interrupted(
    listed, tmp_path, monkeypatch
):
    def interrupt(run):
        raise KeyboardInterrupt

    data, run = tmp_path / 'data', tmp_path / 'run'
    command = ['pretrain', data, '--out', run]
    write_pictures(data, 8)
    if listed:  # what can be read, if not all
        (data / 'broken.png').write_bytes(b'no image')
    with monkeypatch.context() as patch:
        patch.setattr('mmmixmim.cli.pretrain.train', interrupt)
        assert mixmim(*command)[0] == 130
        assert 'when the run began' not in mixmim(*command)[1]
        write_pictures(data, 10)
        _, added, _ = mixmim(*command)
        for number in range(5):
            (data / f'data{number:02}.png').unlink()
        _, removed, _ = mixmim(*command)
    effect = f'not used, as {run}/images.txt decides' if listed else 'used, too'
    assert f'{data} has 2 images more than when the run began: {effect}.' in added
    effect = 'counted as unreadable' if listed else 'left out from now on'
    assert f'{data} has 3 images fewer than when the run began: {effect}.' in removed
    loader = Config.fromfile(run / 'config.py').train_dataloader
    assert len(DATASETS.build(loader.dataset)) == (8 if listed else 5)


@pytest.mark.parametrize('name', ['picture', 'picture.txt', ''])
def test_the_picture_of_a_reconstruction_has_an_ending(pretrained, name, tmp_path):
    line = error_line('reconstruct', pretrained[0], '--out', tmp_path / name)
    assert 'must be the name of a picture, ending in .png or .jpg' in line
