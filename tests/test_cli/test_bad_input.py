"""Each thing that cannot work is one clear line before training starts."""

import numpy as np
import pytest
from PIL import Image

import mmmixmim
from mmmixmim.cli import machine, settings, training
from mmmixmim.cli.source import find_source
from mmmixmim.datasets import write_shards
from mmmixmim.datasets.readers import PillowReader
from mmmixmim.datasets.scan import Scan
from mmmixmim.engine import ProgressLineHook
from mmmixmim.validation import UserError

from .conftest import error_line, mixmim, write_pictures


def one_image(folder):
    write_pictures(folder, 1)


def nothing(folder):
    folder.mkdir()
    (folder / 'notes.txt').write_text('no image')


def unreadable(folder):
    nothing(folder)
    (folder / 'a.png').write_bytes(b'no image')


def tiny_images(folder):
    write_pictures(folder, 4, size=(6, 40))


def constant(folder):
    folder.mkdir()
    for number in range(4):
        Image.new('RGB', (40, 40), (number, 0, 0)).save(folder / f'{number}.png')


def other_bits(folder):
    folder.mkdir()
    for number in range(4):
        grey = np.full((40, 40), number, np.uint8)
        Image.fromarray(grey).save(folder / f'{number}.png')
    Image.fromarray(np.eye(40, dtype=np.uint16)).save(folder / 'deep.png')


def other_channels(folder):
    folder.mkdir()
    for channels in (5, 5, 7):
        array = np.random.default_rng(0).random((channels, 40, 40), np.float32)
        np.save(folder / f'{channels}-{len(list(folder.iterdir()))}.npy', array)


def not_a_number(folder):
    folder.mkdir()
    for number in range(3):
        array = np.random.default_rng(number).random((40, 40), np.float32)
        array[3, 4] = np.nan if number == 1 else 0
        np.save(folder / f'{number}.npy', array)


@pytest.mark.parametrize(
    'make, said',
    [
        (nothing, 'holds no images'),
        (one_image, 'one readable image'),
        (unreadable, 'no readable image'),
        (tiny_images, '6 pixels, smaller than a cell of 8 pixels'),
        (constant, 'are constant'),
        (other_bits, 'number of bits: 4 with 8, 1 with 16'),
        (other_channels, 'number of channels: 2 with 5, 1 with 7'),
        (not_a_number, 'say --no-data=nan'),
    ],
)
def test_images_that_cannot_be_trained_on(make, said, tmp_path):
    make(tmp_path / 'data')
    assert said in error_line('pretrain', tmp_path / 'data', '--out', tmp_path / 'run')
    assert not (tmp_path / 'run' / 'run.json').exists()


@pytest.mark.parametrize(
    'options, said',
    [
        (('--image-size', 50), 'not divisible by the cells of 8 pixels'),
        (('--image-size', 8), 'less than two cells'),
        (('--model', 'enormous'), 'must be one of micro, tiny, base, large, huge'),
        (('--precision', 'int8'), '--precision must be one of'),
        (('--lr', -1), '--lr must be a number of at least 0, got -1.0'),
        (('--seed', -1), '--seed must be an int'),
        (('--batch-size', 1), 'mixed in pairs'),
        (('--batch-size', 100), 'larger than the 56 images to train on'),
        (('--batch-size', 10**9), 'a run may take 80 %: choose --batch-size'),
        (('--from', 'nowhere.pth'), 'nowhere.pth'),
        (('--no-data', 'black'), "no_data must be a number, 'nan' or None"),
        (('--no-data', 0), 'pictures of 8 bits'),
    ],
)
def test_settings_that_cannot_work(options, said, photos, tmp_path):
    line = error_line('pretrain', photos, '--out', tmp_path / 'run', *options)
    assert said in line
    assert not (tmp_path / 'run' / 'run.json').exists()


@pytest.mark.parametrize('command', ['pretrain', 'finetune', 'probe'])
def test_names_are_checked_before_the_scan(command, photos, tmp_path):
    line = error_line(command, photos, '--out', tmp_path / 'run', '--model', 'giant')
    assert '--model must be one of micro, tiny, base' in line and "'giant'" in line
    assert not (tmp_path / 'run').exists()


def test_shards_that_cannot_be_trained_on(photos, tmp_path, server):
    shards = tmp_path / 'shards'
    write_shards(photos, shards, images_per_shard=8)
    for data, options, said in (
        (shards / 'none.tar', (), f"no shard '{shards}/none.tar'"),
        (shards / '{000007..000010}.tar', (), f"no shard '{shards}/000009.tar'"),
        (server(shards) + 'none.tar', (), 'none.tar cannot be read'),
        (shards / '{000000..000009.tar', (), 'Unbalanced braces'),
        ('s3://bucket/{0..9}.tar', (), 'no gopen handler'),
        (tmp_path / 'none.json', (), 'no index of shards'),
        (shards, ('--workers', 10), '10 are more than the 9 shards to train on'),
        (shards, ('--no-data', 0), 'pictures of 8 bits'),
    ):
        assert said in error_line('pretrain', data, '--out', tmp_path / 'run', *options)
    for size, said in ((0, 'cannot be read: empty file'), (10240, 'holds no images')):
        (shards / '000003.tar').write_bytes(bytes(size))
        line = error_line('pretrain', shards, '--out', tmp_path / 'run')
        assert '000003.tar' in line and said in line
    assert not (tmp_path / 'run' / 'run.json').exists()


def test_images_with_shards_beside_them(tmp_path):
    data = tmp_path / 'data'
    write_pictures(data, 2)
    (data / '000000.tar').touch()
    line = error_line('pretrain', data, '--out', tmp_path / 'run')
    assert "holds images and tar files, such as '000000.tar'" in line
    assert f"name them, as '{data}/000000.tar'" in line
    (data / '000000.tar').rename(tmp_path / '000000.tar')
    (tmp_path / '000000.tar').touch()
    assert find_source(tmp_path, tmp_path / 'run').scan.images == 2


def test_labels_have_paths(tmp_path):
    with pytest.raises(UserError, match='must be the path .* got a list'):
        mmmixmim.finetune([np.zeros((32, 32, 3), np.uint8)], tmp_path / 'run')


def test_the_folder_of_another_run(pretrained, photos, tmp_path):
    out, _ = pretrained
    line = error_line('pretrain', photos, '--out', out, '--epochs', 3)
    assert 'another run: epochs is 2 there, but 3 here. It has come to its end' in line
    line = error_line('pretrain', photos / 'sea', '--out', out, '--epochs', 2)
    assert 'another run: data is' in line
    line = error_line('finetune', photos, '--out', out)
    assert 'it is a pretrain, not a finetune' in line
    line = error_line('pretrain', photos / 'sea', '--out', photos)
    assert 'is not empty' in line


@pytest.mark.parametrize('command', ['finetune', 'probe'])
@pytest.mark.parametrize(
    'make, said',
    [
        (constant, 'are constant'),
        (other_channels, 'number of channels: 2 with 5, 1 with 7'),
        (not_a_number, 'say --no-data=nan'),
        (unreadable, '1 of 1 labelled file cannot be read'),
    ],
)
def test_labelled_images_that_cannot_be_trained_on(command, make, said, tmp_path):
    data = tmp_path / 'data'
    data.mkdir()
    make(data / 'a')
    assert said in error_line(command, data, '--out', tmp_path / 'run')


@pytest.mark.parametrize('command', ['pretrain', 'finetune'])
def test_files_that_are_skipped_are_counted(command, tmp_path):
    for label in 'ab':
        write_pictures(tmp_path / 'data' / label, 4)
        (tmp_path / 'data' / label / 'boxes.xml').touch()
    options = ['--out', tmp_path / 'run', '--dry-run']
    code, printed, err = mixmim(command, tmp_path / 'data', *options)
    assert code == 0, err
    said = '  skipped 2 files whose ending is not that of an image: .xml (2)\n'
    assert said in printed
    for file in tmp_path.rglob('*.xml'):
        file.unlink()
    _, printed, _ = mixmim(command, tmp_path / 'data', *options)
    assert 'whose ending' not in printed


def test_labelled_files_that_cannot_be_read_are_named(tmp_path):
    for label in 'ab':
        write_pictures(tmp_path / 'data' / label, 5)
    for number in range(5):
        path = tmp_path / 'data' / 'a' / f'a{number:02}.png'
        path.write_bytes(path.read_bytes()[:-40])
    run = tmp_path / 'run'
    code, printed, err = mixmim('finetune', tmp_path / 'data', '--out', run)
    assert code == 1 and 'left out' not in printed
    named = ', '.join(f"'{tmp_path}/data/a/a{number:02}.png'" for number in range(3))
    assert f'5 of 10 labelled files cannot be read: {named} and 2 more, see' in err
    assert len(Scan.load(run / 'scan.json').examples['unreadable']) == 5


def test_what_could_not_be_read_is_looked_at_again(tmp_path, monkeypatch):
    """The disk had failed, or a decoder was missing; no file has changed."""
    write_pictures(tmp_path / 'data', 4)
    command = ['pretrain', tmp_path / 'data', '--out', tmp_path / 'run', '--dry-run']
    with monkeypatch.context() as patch:
        patch.setattr(PillowReader, '_read', failing)
        line = error_line(*command)
    assert 'no readable image (4 unreadable: ' in line
    assert "data00.png' cannot be read: no decoder)" in line
    code, printed, err = mixmim(*command)
    assert code == 0 and '4 images, ' in printed and 'unreadable' not in printed, err


def failing(*arguments):
    raise RuntimeError('no decoder')


def test_a_batch_that_cannot_fit():
    """Both figures are those of the base model, on a card of 16 GiB."""
    cost = machine.Cost(115_000_000, 111 * 10**9, 300_000_000)
    card = machine.Machine('cuda', 'Card', 16 * 1024**3, 8, bf16=True)
    fits = settings.largest_batch(cost, card)
    assert cost.memory(fits) <= 0.8 * card.memory < cost.memory(fits + 1)
    settings.check_batch(fits, fits, cost, card, images=10_000)
    with pytest.raises(UserError, match=rf'needs about .* --batch-size {fits} or less'):
        settings.check_batch(fits + 1, fits, cost, card, images=10_000)


def test_a_gpu_without_memory_left_is_one_line(photos, tmp_path, monkeypatch):
    """The estimate can be wrong, or another program takes the memory."""

    def run_out(self, runner):
        raise RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ...')

    monkeypatch.setattr(ProgressLineHook, 'before_train', run_out)
    out = tmp_path / 'run'
    code, _, err = mixmim('pretrain', photos, '--out', out, '--batch-size', 4)
    assert code == 1 and 'Traceback' not in err
    assert 'choose --batch-size 2, and another --out' in err


def test_no_space_for_checkpoints(tmp_path):
    """No disk has room for a model of 10 ** 15 parameters."""
    training.check_disk(tmp_path / 'new' / 'run', 1000)
    with pytest.raises(UserError, match='3 checkpoints of .* GiB free: choose'):
        training.check_disk(tmp_path / 'new' / 'run', 10**15)


@pytest.mark.parametrize(
    'counts, said',
    [
        (dict(a=4), "one class, 'a'"),
        (dict(a=4, b=1), "'b' has 0 images to train on and 1 to validate"),
    ],
)
def test_classes_that_cannot_be_told_apart(counts, said, tmp_path):
    for name, count in counts.items():
        write_pictures(tmp_path / 'data' / name, count)
    assert said in error_line('finetune', tmp_path / 'data', '--out', tmp_path / 'run')


def test_tables_without_labels(photos, tmp_path):
    (tmp_path / 'a.csv').write_text(f'path\n{photos}/sea/sea00.jpg\n')
    line = error_line('finetune', tmp_path / 'a.csv', '--out', tmp_path / 'run')
    assert "no column 'label'" in line
    (tmp_path / 'b.csv').write_text('path,label\nmissing.png,x\n')
    line = error_line('finetune', tmp_path / 'b.csv', '--out', tmp_path / 'run')
    assert 'missing.png' in line and 'does not exist' in line
    (tmp_path / 'excel.csv').write_text('path,label\nä.png,x\n', encoding='latin-1')
    line = error_line('finetune', tmp_path / 'excel.csv', '--out', tmp_path / 'run')
    assert 'no CSV file in UTF-8' in line
    (tmp_path / 'c.csv').write_text(f'path,label\n{photos}/sea/sea00.jpg,\n')
    line = error_line('finetune', tmp_path / 'c.csv', '--out', tmp_path / 'run')
    assert 'Line 2' in line and 'has no label' in line


def test_out_that_cannot_be_a_folder(tmp_path):
    write_pictures(tmp_path / 'images', 4)
    (tmp_path / 'file').touch()
    for out in ('file', 'file/run'):
        line = error_line('pretrain', tmp_path / 'images', '--out', tmp_path / out)
        assert line.endswith(f"'{tmp_path}/file' is a file. Choose another --out.")
