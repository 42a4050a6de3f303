"""Pretraining on lists, datasets and iterables of Python."""

import re
import shutil
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mmmixmim
from mmmixmim.cli.python_data import store_images
from mmmixmim.cli.run import Run
from mmmixmim.cli.source import find_source
from mmmixmim.engine import ProgressLineHook
from mmmixmim.validation import UserError

from ..scripts import call
from .conftest import error_line, mixmim, picture, write_pictures

BANDS = 5


@pytest.fixture(scope='module')
def dataset():
    """64 images of five bands with labels, of float32."""
    images = torch.rand(64, BANDS, 32, 32, generator=torch.manual_seed(0))
    return TensorDataset(40 * images, torch.arange(64))


@pytest.fixture(scope='module')
def trained(dataset, tmp_path_factory):
    """A run of one epoch on the dataset."""
    out = tmp_path_factory.mktemp('python') / 'run'
    return mmmixmim.pretrain(dataset, out, epochs=1)


def test_a_torch_dataset_becomes_a_run(trained):
    cfg = Config.fromfile(trained / 'config.py')
    assert cfg.model.backbone.in_channels == BANDS
    assert cfg.train_dataloader.dataset.held_out == 16
    text = (trained / 'config.py').read_text()
    assert 'the same call repeats the run, and `mim train` cannot' in text
    page = (trained / 'report.html').read_text()
    assert 'WrappedDataset, TensorDataset of 64 items' in page
    for name in ('report.html', 'reconstruction.png', 'statistics.json'):
        assert (trained / name).stat().st_size
    assert 'reconstruction/loss' in next(trained.glob('*/*.log')).read_text()


def test_ctrl_c_is_a_keyboard_interrupt_and_the_run_goes_on_with_the_same_bits(
    trained, dataset, tmp_path, monkeypatch
):
    def handlers():
        return [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def interrupt(self, runner, *args, **kwargs):
        if runner.iter == 2:
            signal.raise_signal(signal.SIGINT)

    before = handlers()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ProgressLineHook, 'after_train_iter', interrupt)
        mmmixmim.pretrain(dataset, tmp_path / 'run', epochs=1)
    assert handlers() == before
    saved = torch.load(tmp_path / 'run' / 'latest.pth', weights_only=False)
    assert saved['meta']['iter'] == 3
    out = mmmixmim.pretrain(dataset, tmp_path / 'run', epochs=1)
    assert 'resumed epoch: 0, iter: 3' in max(out.glob('*/*.log')).read_text()
    first, second = (
        torch.load(folder / 'epoch_1.pth', weights_only=False)['state_dict']
        for folder in (trained, out)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_a_config_without_its_dataset_can_do(trained, tmp_path):
    config, work_dir = trained / 'config.py', ('--work-dir', tmp_path / 'again')
    result = call('train.py', config, *work_dir, cwd=tmp_path)
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'error: The images of this config (TensorDataset of 64' in result.stderr
    assert '--images FOLDER' in error_line('reconstruct', trained)
    page = (trained / 'report.html').read_text()
    assert re.search(r'reconstruct .*--images FOLDER', page)
    for number in range(4):
        array = np.random.default_rng(number).random((BANDS, 40, 40), np.float32)
        np.save(tmp_path / f'{number}.npy', array)
    options = ('--images', tmp_path, '--num', 4, '--out', tmp_path / 'a.png')
    code, _, err = mixmim('reconstruct', trained, *options)
    assert code == 0 and (tmp_path / 'a.png').stat().st_size, err


def test_a_run_goes_on_with_the_same_dataset_only(trained, dataset):
    assert mmmixmim.pretrain(dataset, trained, epochs=1) == trained
    with pytest.raises(UserError, match='of 64 items.* there, but .*of 63 items'):
        mmmixmim.pretrain(torch.utils.data.Subset(dataset, range(63)), trained)
    again = Run.load(trained).invocation
    assert again.startswith(f"mmmixmim.pretrain(data, out='{trained}', epochs=1")
    assert again.endswith('# data: TensorDataset of 64 items')


def test_images_of_an_iterable_are_stored(tmp_path):
    pictures = (picture(seed, (40, 36)) for seed in range(6))
    out = mmmixmim.pretrain(pictures, tmp_path / 'run', epochs=1)
    cfg = Config.fromfile(out / 'config.py')
    assert cfg.train_dataloader.dataset.type == 'RasterFolder'
    listed = (out / 'images.txt').read_text().splitlines()
    assert len(listed) == 6
    assert np.array_equal(np.load(listed[3]), picture(3, (40, 36)))
    # A repeated call does not ask for the images again.
    assert mmmixmim.pretrain((x for x in ()), out, epochs=1) == out


def test_a_dry_run_stores_nothing(tmp_path, capsys):
    pictures = (picture(seed, (40, 36)) for seed in range(6))
    mmmixmim.pretrain(pictures, tmp_path / 'run', dry_run=True)
    assert 'generator, a Python iterable' in capsys.readouterr().out
    left = {path.name for path in (tmp_path / 'run').iterdir()}
    assert left == {'.lock', 'scan.json'}


def test_paths_are_left_where_they_are(tmp_path, capsys):
    write_pictures(tmp_path / 'some', 6)
    paths = sorted((tmp_path / 'some').iterdir())
    for given in (paths, (tmp_path / 'some').glob('*.png')):
        mmmixmim.pretrain(given, tmp_path / 'run', dry_run=True)
        assert re.search('6 images, .* MB: 6 PNG', capsys.readouterr().out)
    assert sorted(store_images(iter(paths), tmp_path / 'stored')[0]) == paths
    assert not (tmp_path / 'stored').exists()


def test_repeated_paths_count_once(tmp_path, capsys):
    """Else one may be trained on and the other one held out."""
    write_pictures(tmp_path / 'some', 6)
    shutil.copy(tmp_path / 'some' / 'some00.png', tmp_path / 'some' / 'copy.png')
    names = [f'some/{path.name}' for path in (tmp_path / 'some').iterdir()]
    listed = [*names, *(f'./some/../{name}' for name in names)]
    (tmp_path / 'list.txt').write_text('\n'.join(listed))
    for given in (tmp_path / 'list.txt', [tmp_path / name for name in listed]):
        find_source(given, tmp_path / 'run').prepare(None, 2)
        printed = capsys.readouterr().out
        assert '7 repeated paths left out' in printed
        assert 'as copies may be both trained on and held out' in printed
        files = (tmp_path / 'run' / 'images.txt').read_text().splitlines()
        assert files == [str(tmp_path / name) for name in names]


@pytest.mark.parametrize(
    'data, said',
    [
        (7, 'data must be a path, .* got a int'),
        (dict(a=1), 'got a dict'),
        ([], 'no readable image'),
        (np.zeros((0, 8, 8, 3)), 'no readable image'),
        ([np.eye(40)], 'one readable image'),
        ([7, 8], 'An item of the dataset is a int'),
        (np.zeros((5, 40)), 'item 0.* its shape is'),
        (['missing.png'], 'no image file'),
        (iter(['missing.png']), 'no image file'),
        (iter([dict(img=np.eye(40), mask=np.eye(40))]), 'yields masks'),
        (DataLoader([1, 2]), r'pass its dataset \(loader.dataset\)'),
        (np.ones((4, 40, 40), np.uint8), 'are constant, such as .item 0'),
        ([np.full((40, 40), np.nan)] * 2, 'say --no-data=nan'),
        ([np.eye(40), np.eye(40, dtype=np.uint8)], 'number of bits: 1 with 64, 1 with'),
        ([dict(img=np.eye(40), mask=np.eye(40)), np.eye(40)], 'Item 1 .* has no mask'),
        ([np.eye(40)[:5], np.eye(40)], 'smaller than a cell of 8 pixels'),
    ],
)
def test_what_cannot_be_trained_on(data, said, tmp_path):
    with pytest.raises(UserError, match=said):
        mmmixmim.pretrain(data, tmp_path / 'run')
    assert not (tmp_path / 'run' / 'run.json').exists()
    assert not (tmp_path / 'run' / 'from_python').exists()


def test_tables_list_paths(tmp_path, capsys):
    pyarrow = pytest.importorskip('pyarrow')
    parquet = pytest.importorskip('pyarrow.parquet')
    write_pictures(tmp_path / 'some', 6)
    paths = [f'some/{path.name}' for path in tmp_path.glob('*/*')]
    parquet.write_table(pyarrow.table(dict(path=paths)), tmp_path / 'a.parquet')
    mmmixmim.pretrain(tmp_path / 'a.parquet', tmp_path / 'run', dry_run=True)
    assert re.search('a table\n +6 images, .* MB: 6 PNG', capsys.readouterr().out)


def test_masks_of_a_dataset_become_weights(tmp_path):
    items = [
        dict(image=picture(seed, (40, 40)), mask=np.tri(40, dtype=bool))
        for seed in range(4)
    ]
    out = mmmixmim.pretrain(items, tmp_path / 'run', epochs=1)
    cfg = Config.fromfile(out / 'config.py')
    packed = cfg.train_dataloader.dataset.pipeline[1]
    assert packed.algorithm_keys == ('pixel_weight',)


class Stream(IterableDataset):
    """Has a length, which IterableDatasets may have, and no index."""

    def __len__(self):
        return 4

    def __iter__(self):
        return (picture(number, (40, 40)) for number in range(4))


def test_a_stream_with_a_length_has_no_index(tmp_path, capsys):
    mmmixmim.pretrain(Stream(), tmp_path / 'run', epochs=1, dry_run=True)
    assert 'Stream of 4 items, a Python iterable' in capsys.readouterr().out


def test_files_beside_stored_images_are_kept(tmp_path):
    folder = tmp_path / 'from_python'
    write_pictures(folder, 1)
    with pytest.raises(UserError, match='no array of numbers'):
        store_images([picture(0, (9, 9)), np.array([[None]])], folder)
    assert [file.suffix for file in folder.iterdir()] == ['.png']
