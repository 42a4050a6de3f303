"""Shards by one command, and pretraining on them by another."""

import json
import re
import shlex
import signal

import numpy as np
import pytest
from mmengine.config import Config

from mmmixmim.cli.run import Run
from mmmixmim.cli.shards import Shards
from mmmixmim.datasets import write_shards
from mmmixmim.engine import ProgressLineHook
from mmmixmim.engine.hooks.preemption import INTERRUPTED
from mmmixmim.validation import UserError

from .conftest import error_line, mixmim, write_pictures


def test_writes_shards_of_a_folder(image_folder, tmp_path):
    arguments = ['shard', image_folder, tmp_path / 'shards', '--images-per-shard', 2]
    code, printed, err = mixmim(*arguments)
    assert code == 0, err
    assert 'Wrote 3 shards' in printed
    files = sorted(path.name for path in (tmp_path / 'shards').iterdir())
    assert files == ['000000.tar', '000001.tar', '000002.tar', 'shards.json']
    assert 'has shards already' in error_line(*arguments)
    for data, said in (('nowhere', 'There is no folder'), ('a.csv', 'is a file, exp')):
        (tmp_path / 'a.csv').touch()
        line = error_line('shard', tmp_path / data, tmp_path / 'more')
        assert said in line and '--cfg-options' not in line


def test_shards_in_which_nothing_can_be_read_say_why(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in range(4):
        (tmp_path / 'images' / f'{number}.png').write_bytes(b'no image')
    write_shards(tmp_path / 'images', tmp_path / 'shards')
    line = error_line('pretrain', tmp_path / 'shards', '--out', tmp_path / 'run')
    assert re.search("None of the 4 .* The image '.*png' cannot be read: cannot", line)


@pytest.fixture(scope='module')
def shards(tmp_path_factory):
    """Ten shards of 16 pictures, and the command that trains on them."""
    folder = tmp_path_factory.mktemp('shards')
    write_pictures(folder / 'images', 160, size=(32, 32))
    arguments = [folder / 'images', folder / 'shards', '--images-per-shard', 16]
    _, printed, _ = mixmim('shard', *arguments)
    return folder / 'shards', shlex.split(printed.splitlines()[-1])


def test_an_interrupted_run_on_shards_goes_on(shards, tmp_path, monkeypatch):
    """By the command that was printed; interrupted in the second of two epochs."""
    folder, command = shards
    assert command[:4] == ['python', '-m', 'mmmixmim', 'pretrain']
    out, seen = tmp_path / 'run', []
    command = [*command[3:], '--out', out, '--epochs', 2]
    shown = ProgressLineHook.after_train_iter

    def spy(self, runner, batch_idx, data_batch=None, outputs=None):
        shown(self, runner, batch_idx, data_batch, outputs)
        seen.extend(sample.img_path for sample in data_batch['data_samples'])
        if runner.iter == 20 and len(seen) == 21 * 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressLineHook, 'after_train_iter', spy)
    code, printed, err = mixmim(*command)
    assert code == INTERRUPTED, printed + err
    assert '10 shards, with as many images as their index says' in printed
    assert '160 images, ' in printed and 'not checked: copies' in printed
    assert re.search(r'held_out +16 +images of the first shard', printed)
    code, printed, err = mixmim(*command)
    assert code == 0, err
    assert 'Going on after latest.pth' in printed and 'warning' not in printed
    assert re.search(r'epoch 2/2 +100%  loss [\d.]+  held-out loss [\d.]+', printed)
    # Two passes over the nine other shards, as without a break.
    assert len(seen) == 2 * 144 and not any('/000000.tar' in path for path in seen)
    assert len(set(seen[:144])) == 144 and set(seen[:144]) == set(seen[144:])
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.train_dataloader.dataset.shards == str(folder)
    assert cfg.train_cfg.max_iters == 2 * 18 == cfg.param_scheduler[0].end
    assert len(list((out / 'held_out').iterdir())) == 16
    for name in ('report.html', 'reconstruction.png', 'iter_36.pth'):
        assert (out / name).stat().st_size
    assert Run.load(out).finished


def test_shards_on_a_web_server(shards, server, tmp_path):
    address = server(shards[0])
    options = ['--out', tmp_path / 'run', '--dry-run']
    for name, said in (
        ('shards.json', 'with as many images as their index says\n  160 images: '),
        ('{000000..000009}.tar', 'with as many images as their index says'),
        ('{000000..000003}.tar', 'assumed to be as large as the first\n  64 images: '),
    ):
        code, printed, err = mixmim('pretrain', address + name, *options)
        assert code == 0, err
        assert f'Data: {address}{name}, ' in printed and said in printed


def test_shards_of_rasters_keep_their_channels(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).normal(0, 9, (40, 40, 5))
        pixels[3, 4] = -99
        np.save(tmp_path / 'images' / f'{number}.npy', pixels.astype(np.float32))
    (tmp_path / 'images' / 'damaged.npy').write_bytes(b'no image')
    write_shards(tmp_path / 'images', tmp_path / 'shards', images_per_shard=5)
    (tmp_path / 'shards' / 'shards.json').unlink()
    options = ['--out', tmp_path / 'run', '--epochs', 1, '--no-data', -99]
    code, printed, err = mixmim('pretrain', tmp_path / 'shards', *options)
    assert code == 0, printed + err
    assert '2 shards, whose images were counted\n  9 images, 0.3 MB, ' in printed
    assert 'of which 8 were looked at: 8 NPY' in printed
    assert '1 left out, as unreadable' in printed
    cfg = Config.fromfile(tmp_path / 'run' / 'config.py')
    assert cfg.model.backbone.in_channels == 5
    statistics = json.loads((tmp_path / 'run' / 'statistics.json').read_text())
    assert statistics['pixels'] == 8 * (40 * 40 - 1)


def test_the_first_shard_is_counted(tmp_path):
    write_pictures(tmp_path / 'images', 6)
    write_shards(tmp_path / 'images', tmp_path / 'shards', images_per_shard=4)
    (tmp_path / 'shards' / '000001.tar').rename(tmp_path / 'shards' / '0.tar')
    scan = Shards(str(tmp_path / 'shards'), tmp_path / 'run').scan
    assert (scan.images, scan.first_shard) == (6, 2)


def test_a_run_that_fails_before_it_exists_can_be_started_again(tmp_path):
    """Nothing but the scan is left, which the same command takes."""
    (tmp_path / 'images').mkdir()
    for number in range(64):
        np.save(tmp_path / 'images' / f'{number}.npy', np.zeros((4, 4, 5), np.int16))
    write_shards(tmp_path / 'images', tmp_path / 'shards', images_per_shard=4)
    source = Shards(str(tmp_path / 'shards'), tmp_path / 'run')
    with pytest.raises(UserError, match='no valid pixel'):
        source.prepare(0, 4)
    assert [file.name for file in (tmp_path / 'run').iterdir()] == ['scan.json']
