import errno
import json
import os
import pickle
import signal
import tarfile
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mmmixmim.datasets import ShardStream, write_shards
from mmmixmim.datasets.shards import count_images, read_shards
from mmmixmim.validation import (
    MissingFileError,
    RefusedFileError,
    UnreadableFileError,
    UserError,
)

PIPELINE = [dict(type='LoadRandomResizedCrop', scale=8)]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(23):
        path = tmp_path / 'images' / ('a.b' if i % 2 else '.') / f'x.{i}.JPG'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(path)
    return tmp_path / 'images'


@pytest.fixture
def shards(folder, tmp_path):
    write_shards(folder, tmp_path / 'shards', images_per_shard=5)
    return tmp_path / 'shards'


def names(stream, n):
    return [sample['img_path'] for sample in islice(stream, n)]


def stream(shards, **kwargs):
    return ShardStream(str(shards), PIPELINE, **dict(shuffle_buffer=4) | kwargs)


def test_shards_hold_every_file_as_it_is(folder, shards):
    files = sorted(shards.glob('*.tar'))
    assert [file.name for file in files] == [f'{i:06}.tar' for i in range(5)]
    found = []
    for file in files:
        with tarfile.open(file) as tar:
            found += [tar.extractfile(member).read() for member in tar]
    wanted = [path.read_bytes() for path in folder.rglob('*.JPG')]
    assert sorted(found) == sorted(wanted) and found != wanted
    index = json.loads((shards / 'shards.json').read_text())
    assert index == dict(images=23, shards=[file.name for file in files])


def test_each_pass_has_all_images_in_another_order(shards):
    found = names(stream(shards), 69)
    passes = [found[:23], found[23:46], found[46:]]
    assert len({tuple(each) for each in passes}) == 3
    assert [sorted(each) for each in passes] == [sorted(found[:23])] * 3
    assert len(set(found)) == 23


def test_order_follows_the_seed(shards):
    assert names(stream(shards), 30) == names(stream(shards), 30)
    assert names(stream(shards), 30) != names(stream(shards, seed=1), 30)
    plain = names(stream(shards, shuffle_buffer=0), 5)
    assert len({name.split('.tar')[0] for name in plain}) == 1


def test_loader_processes_share_the_shards(shards):
    """And a loader that is started anew goes over the same batches."""
    runs = []
    for _ in range(2):
        loader = DataLoader(stream(shards), None, num_workers=2)
        runs.append(names(loader, 16))
    assert runs[0] == runs[1]
    # The first eight of each process, which has at least eight images in a pass.
    assert len(set(runs[0])) == 16


def test_ranks_share_the_shards(shards, monkeypatch):
    found = []
    for rank in range(2):
        monkeypatch.setattr(
            'mmmixmim.datasets.shards.get_dist_info', lambda rank=rank: (rank, 2)
        )
        found.append({name.split('.tar')[0] for name in names(stream(shards), 8)})
    assert found[0] and found[1] and not found[0] & found[1]


def test_variables_of_a_cluster_alone_hide_no_shards(shards, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '4')
    monkeypatch.setenv('WORKER', '1')
    monkeypatch.setenv('NUM_WORKERS', '4')
    assert len(set(names(stream(shards), 23))) == 23


def test_loader_processes_may_be_spawned(shards):
    copy = pickle.loads(pickle.dumps(stream(shards)))
    assert names(copy, 23) == names(stream(shards), 23)


def test_reads_from_a_web_server(shards, server):
    address = server(shards)
    wanted = {name.rsplit('/', 1)[-1] for name in names(stream(shards), 23)}
    for source in (address + '{000000..000004}.tar', address + 'shards.json'):
        found = names(stream(source), 23)
        assert {name.rsplit('/', 1)[-1] for name in found} == wanted
        assert found[0].startswith(address)


@pytest.mark.skipif(not Path('/proc/self').exists(), reason='needs /proc')
def test_ctrl_c_does_not_end_curl(tmp_path, server):
    """A terminal sends it to all processes; the run is to save and stop by itself."""
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        for name in ('a.png', 'b.png', 'c.png'):
            file = tarfile.TarInfo(name)
            file.size = 10**6  # more than a pipe holds
            tar.addfile(file, BytesIO(bytes(file.size)))
    images = read_shards([server(tmp_path) + 'a.tar'])
    next(images)
    children = Path('/proc/self/task').glob('*/children')
    processes = ' '.join(file.read_text() for file in children).split()
    (curl,) = (x for x in processes if 'curl' in Path(f'/proc/{x}/comm').read_text())
    os.kill(int(curl), signal.SIGINT)
    assert [len(image['img_bytes']) for image in images] == [10**6, 10**6]


def test_lists_of_files_are_taken(shards):
    files = sorted(map(str, shards.glob('*.tar')))
    found = ShardStream(files[:1], PIPELINE)
    assert len(set(names(found, 10))) == 5


def test_damaged_shard_is_named(shards):
    file = shards / '000002.tar'
    file.write_bytes(file.read_bytes()[:1500] + b'x' * 900)
    with pytest.raises(UnreadableFileError, match=r'000002\.tar'):
        names(ShardStream([str(file)], PIPELINE), 10)


def test_missing_shard_of_a_server_is_named(shards, server):
    with pytest.raises(UnreadableFileError, match='none.tar'):
        names(stream(server(shards) + 'none.tar'), 1)


def test_shards_without_images_are_refused(tmp_path):
    (tmp_path / 'note.txt').write_text('a')
    with tarfile.open(tmp_path / 'a.tar', 'w') as tar:
        tar.add(tmp_path / 'note.txt', 'note.txt')
    with pytest.raises(UnreadableFileError, match='note has no image.*txt'):
        names(stream(tmp_path), 1)


def test_a_process_whose_shards_are_empty_does_not_wait(tmp_path):
    tarfile.open(tmp_path / 'a.tar', 'w').close()
    with pytest.raises(UserError, match='a.tar. holds no images'):
        names(stream(tmp_path), 1)


def write_sample(folder, *endings):
    """A shard of one sample with files of these endings, and what is its image."""
    with tarfile.open(folder / 'a.tar', 'w') as tar:
        for ending in endings:
            tar.addfile(tarfile.TarInfo(f'00000.{ending}'), BytesIO())
    (image,) = read_shards([str(folder / 'a.tar')])
    return image['img_path'].partition('00000.')[2]


@pytest.mark.parametrize(
    'endings, image',
    [
        (('depth.npy', 'jpg'), 'jpg'),
        (('npy', 'jpg'), 'jpg'),
        (('mask.png', 'tif'), 'tif'),
        (('depth.npy', 'npy'), 'npy'),
        (('mask.png', 'npy'), 'npy'),
        (('img', 'npy'), 'npy'),
        (('input.png', 'target.png'), 'input.png'),
    ],
)
def test_the_image_of_a_sample_is_found(endings, image, tmp_path):
    assert write_sample(tmp_path, *endings) == image


@pytest.mark.parametrize('endings', [('jpg', 'png'), ('npy', 'png'), ('png', 'dcm')])
def test_a_sample_with_two_images_is_refused(endings, tmp_path):
    with pytest.raises(UnreadableFileError, match=f'ending in {", ".join(endings)}:'):
        write_sample(tmp_path, *endings)


def test_files_that_only_a_disk_holds_are_not_written_to_shards(folder, tmp_path):
    (folder / 'scene.IMG').touch()
    with pytest.raises(UserError, match='scene.IMG.*1 of 24 images to TIFF or .npy'):
        write_shards(folder, tmp_path / 'shards')
    assert not (tmp_path / 'shards').exists()


def test_what_cannot_be_shared_or_found_is_refused(
    shards, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr('mmmixmim.datasets.shards.get_dist_info', lambda: (1, 2))
    with pytest.raises(UserError, match='fewer than loader processes'):
        names(stream(shards / '000000.tar'), 30)
    with pytest.raises(MissingFileError, match='no shard'):
        stream(folder)
    with pytest.raises(MissingFileError, match='no index of shards'):
        stream(tmp_path / 'none.json')
    with pytest.raises(UserError, match="'http://.*' is no address"):
        stream('http://[half/a.tar')
    with pytest.raises(UserError, match='has shards already'):
        write_shards(folder, shards)


@pytest.mark.parametrize(
    'name',
    ['pipe:touch {} # ://', "a'; touch {}; '.tar", '../a.tar', 'http://host/a.tar', 1],
)
def test_an_index_names_plain_files_only(name, tmp_path):
    made = tmp_path / 'made'
    name = name.format(made) if isinstance(name, str) else name
    index = tmp_path / 'shards.json'
    index.write_text(json.dumps(dict(images=1, shards=[name])))
    with pytest.raises(RefusedFileError, match='expected plain names'):
        names(stream(index), 1)
    assert not made.exists()


@pytest.mark.parametrize('scheme', ['pipe', ' PIPE'])
def test_shards_that_are_commands_are_not_run(scheme, tmp_path):
    made = tmp_path / 'made'
    with pytest.raises(RefusedFileError, match='is a command'):
        names(ShardStream([f'{scheme}:touch {made} # ://'], PIPELINE), 1)
    assert not made.exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_an_interrupted_writing_leaves_no_shards(folder, tmp_path, monkeypatch, error):
    out = tmp_path / 'shards'
    read, found = Path.read_bytes, []

    def interrupt(path):
        found.extend(out.glob('*.tar'))
        if path.name == 'x.7.JPG':
            raise error
        return read(path)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(Path, 'read_bytes', interrupt)
        write_shards(folder, out, images_per_shard=3, seed=None)
    assert not found and not out.exists()
    assert len(write_shards(folder, out, images_per_shard=3)) == 8


def test_a_full_disk_at_the_end_leaves_no_shards(folder, tmp_path, monkeypatch):
    def fill(path, target):
        raise OSError(errno.ENOSPC, 'No space left')

    (tmp_path / 'shards').mkdir()
    monkeypatch.setattr(Path, 'rename', fill)
    with pytest.raises(OSError, match='No space'):
        write_shards(folder, tmp_path / 'shards')
    assert not list((tmp_path / 'shards').iterdir())


def test_folders_with_underscores_around_are_read_back(tmp_path):
    """webdataset takes such names for notes about a shard."""
    for name in ('__x__', 'deep/__y__'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        (tmp_path / 'images' / name / '__z__.png').write_bytes(b'image')
    (tmp_path / 'images' / '__z__.png').write_bytes(b'image')
    files = write_shards(tmp_path / 'images', tmp_path / 'shards')
    assert len(list(read_shards(files))) == 3 == count_images(files[0])


def test_names_may_hold_a_percent_sign(folder, tmp_path):
    files = write_shards(folder, tmp_path / '50% done', images_per_shard=12)
    assert len(list(read_shards(files))) == 23
