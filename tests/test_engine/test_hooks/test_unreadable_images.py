"""Training images that cannot be read, in real files and real loading processes."""

import os
import re
import struct
import threading
import time
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image
from torch.multiprocessing import start_processes
from torch.utils.data import DataLoader, Dataset, IterableDataset

from mmmixmim.datasets import (
    ImageFolder,
    LoadImageOrSkip,
    LoadRandomResizedCrop,
    naming_lost_files,
    unreadable_images,
)
from mmmixmim.datasets.samples import ENDLESS
from mmmixmim.engine import UnreadableImagesHook
from mmmixmim.validation import UnreadableFileError, UserError

from ...scripts import free_port


def png(width, height, *chunks):
    """A PNG of a size that its header claims, without pixels."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = b'\x89PNG\r\n\x1a\n'
    for kind, content in ((b'IHDR', header), *chunks, (b'IDAT', b''), (b'IEND', b'')):
        crc = zlib.crc32(kind + content)
        data += struct.pack('>I', len(content)) + kind + content
        data += struct.pack('>I', crc)
    return data


TEXT_BOMB = (b'zTXt', b'Comment\0\0' + zlib.compress(bytes(100_000_000)))
BROKEN = {
    'empty.jpg': (b'', 'it is empty'),
    'text.png': (b'not an image', 'no image in a supported format'),
    'large.png': (png(100_000, 100_000), 'more than 178,956,970 pixels'),
    'bomb.png': (png(8, 8, TEXT_BOMB), 'Decompressed data too large'),
    'postscript.jpg': (
        b'%!PS-Adobe-3.0 EPSF-3.0\n',
        'no image',
    ),
    b'\xff\n\x1b[31m.jpg': (b'x', 'no image in a supported format'),
    'cut.jpg': (None, 'Truncated'),
}


@pytest.fixture
def images(tmp_path):
    """Sixty small images."""
    folder = tmp_path / 'images'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{number:02}.jpg')
    return folder


@pytest.fixture
def broken(images):
    """Files that cannot be read, next to the images; their paths in a log."""
    photo = (images / '00.jpg').read_bytes()
    names = []
    for name, (data, _) in BROKEN.items():
        path = os.path.join(os.fsencode(images), os.fsencode(name))
        with open(path, 'wb') as file:
            file.write(photo[:300] if data is None else data)
        names.append(name if isinstance(name, str) else r'\udcff\n\x1b[31m.jpg')
    return [f'{images}/{name}' for name in names]


class Mean(BaseModel):
    """A model of one parameter."""

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=(inputs.float().mean() - self.value).square().mean())


def make_runner(folder, work_dir, workers=0, epochs=2, **options):
    hook = dict(type='mmmixmim.UnreadableImagesHook', **options.pop('hook', {}))
    scale = dict(scale=8, ignore_empty=True)
    return Runner(
        model=Mean(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=dict(
                type='mmmixmim.ImageFolder',
                data_root=str(folder),
                pipeline=[
                    dict(type='mmmixmim.LoadRandomResizedCrop', **scale),
                    dict(type='mmpretrain.PackInputs'),
                ],
            ),
            batch_size=8,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[hook],
        experiment_name=f'{work_dir}-{time.monotonic_ns()}',
        log_level='WARNING',
        randomness=dict(seed=0),
        **options,
    )


def listed(work_dir):
    text = (work_dir / 'unreadable_images.txt').read_text()
    return dict(line.split('\t') for line in text.splitlines())


@pytest.mark.parametrize('workers', [0, 2])
def test_files_are_replaced_named_once_and_listed(images, broken, tmp_path, workers):
    runner = make_runner(images, tmp_path, workers, hook=dict(max_share=0.2))
    assert len(runner.build_dataloader(runner._train_dataloader).dataset) == 67
    runner.train()
    assert runner.epoch == 2 and runner.iter == 2 * 9  # 67 images in batches of 8
    reasons = listed(tmp_path)
    assert sorted(reasons) == sorted(broken)
    for path, (_, reason) in zip(broken, BROKEN.values(), strict=True):
        assert re.search(reason, reasons[path])
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    for path in broken:
        assert text.count(f'{path} cannot be read') == 1
    assert '7 images could not be read' in text and '\x1b' not in text


def test_run_stops_above_the_share(images, broken, tmp_path):
    runner = make_runner(images, tmp_path)
    with pytest.raises(UserError) as error:
        runner.train()
    message = str(error.value)
    assert 'more than 1.00% of 67' in message and 'max_share' in message
    assert str(tmp_path / 'unreadable_images.txt') in message
    assert any(path in message for path in broken) and runner.iter < 9
    assert set(listed(tmp_path)) <= set(broken)


def test_share_of_a_stream_counts_by_thousands(tmp_path):
    """It has no epochs."""

    class Stream(IterableDataset):
        def __len__(self):
            return ENDLESS

        def __iter__(self):
            return iter(())

    loader = DataLoader(Stream(), batch_size=None)
    runner = SimpleNamespace(
        work_dir=tmp_path, _resume=False, train_dataloader=loader, iter=100
    )
    hook = UnreadableImagesHook()
    hook.before_train(runner)
    for i in range(50):  # read again up to where the run goes on
        unreadable_images().add(f'{i}.jpg', 'it is empty')
        unreadable_images()._in_a_row = 0
    for i in range(10):
        hook.before_train_iter(runner, i)
        unreadable_images().add(f'{i}.jpg', 'it is empty')
        hook.after_train_iter(runner, i, dict(inputs=[0]))
    unreadable_images().add('10.jpg', 'it is empty')
    with pytest.raises(UserError, match='11 so far, more than 1.00% of 1000'):
        hook.after_train_iter(runner, 10, dict(inputs=[0]))
    assert len(listed(tmp_path)) == 11


def test_share_counts_whole_epochs(images, tmp_path):
    """One of sixty, drawn in the first batch of an epoch or in the last one."""
    (images / '07.jpg').write_bytes(b'x')
    runner = make_runner(images, tmp_path, 2, epochs=5, hook=dict(max_share=1.5 / 60))
    runner.train()
    assert runner.iter == 5 * 8 and list(listed(tmp_path)) == [f'{images}/07.jpg']


@pytest.mark.parametrize('workers', [0, 1])
def test_folder_without_a_single_readable_image_stops(images, tmp_path, workers):
    for path in images.iterdir():
        path.write_bytes(b'')
    with pytest.raises(UnreadableFileError, match='20 images in a row.*it is empty'):
        make_runner(images, tmp_path, workers, hook=dict(max_share=1.0)).train()


def test_list_of_a_resumed_run_goes_on(images, tmp_path):
    (images / '07.jpg').write_bytes(b'x')
    share = dict(hook=dict(max_share=0.2))
    make_runner(images, tmp_path, epochs=1, **share).train()
    (images / '07.jpg').unlink()
    (images / '08.jpg').write_bytes(b'')
    make_runner(images, tmp_path, resume=True, **share).train()
    assert set(listed(tmp_path)) == {f'{images}/07.jpg', f'{images}/08.jpg'}
    make_runner(images, tmp_path, epochs=1, **share).train()
    assert set(listed(tmp_path)) == {f'{images}/08.jpg'}
    (images / '08.jpg').unlink()
    make_runner(images, tmp_path, epochs=1, **share).train()
    assert not (tmp_path / 'unreadable_images.txt').exists()


def _train_rank(rank, port, images, work_dir):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=port,
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo')
    make_runner(images, work_dir, epochs=1, hook=dict(max_share=0.2)).train()


def test_files_of_all_ranks_are_listed(images, broken, tmp_path):
    """Each rank meets some of them."""
    arguments = (free_port(), images, tmp_path)
    start_processes(_train_rank, arguments, nprocs=2, start_method='fork')
    assert sorted(listed(tmp_path)) == sorted(broken)


@pytest.mark.parametrize('share', [-0.1, 1.1, 'all', None])
def test_share_out_of_range(share):
    with pytest.raises(UserError, match='max_share must be from 0 to 1'):
        UnreadableImagesHook(share)


def test_whole_images_are_skipped_too(images, broken, tmp_path):
    log = tmp_path / 'log'
    MMLogger.get_instance(str(tmp_path), log_file=str(log))
    record = unreadable_images()
    start = record.watch()
    load = LoadImageOrSkip()
    assert load(dict(img_path=f'{images}/00.jpg'))['img'].shape == (32, 32, 3)
    assert load(dict(img_path=f'{images}/empty.jpg')) is None
    assert load(dict(img_path=f'{images}/text.png')) is None
    assert load(dict(img_path=f'{images}/nowhere.png')) is None
    paths = [path.split('/')[-1] for path, _ in record.since(start)[0]]
    assert paths == ['empty.jpg', 'text.png', 'nowhere.png']


def test_evaluation_replaces_nothing(images):
    dataset = ImageFolder(
        str(images), test_mode=True, pipeline=[LoadRandomResizedCrop(8)]
    )
    (images / '00.jpg').write_bytes(b'')
    with pytest.raises(UnreadableFileError, match='00.jpg.*it is empty'):
        dataset[0]


class Files(Dataset):
    def __init__(self, paths):
        self.paths = paths
        # With a backend, pipes are read.
        self.load = LoadRandomResizedCrop(8, backend_args=dict(backend='local'))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.load(dict(img_path=str(self.paths[index])))['img']


def test_killed_process_names_the_file_that_it_was_reading(images, tmp_path):
    """Reading a pipe takes until the process is killed."""
    pipe = tmp_path / 'pi\npe.jpg'
    os.mkfifo(pipe)
    loader = iter(DataLoader(Files([images / '00.jpg', pipe]), num_workers=1))
    next(loader)
    (worker,) = loader._workers

    def kill():
        while unreadable_images().last_read(worker.pid) != str(pipe):
            time.sleep(0.01)
        worker.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(UserError) as error:
        with naming_lost_files():
            next(loader)
    thread.join()
    message = str(error.value)
    assert f'(pid {worker.pid})' in message and 'kill' in message.lower()
    assert f'{tmp_path}/pi\\npe.jpg' in message and '--resume' in message


@pytest.mark.parametrize(
    'message',
    [
        'Caught RuntimeError in DataLoader worker process 0.\n ...\nRuntimeError: '
        'unable to allocate shared memory(shm) for file </torch_1_2_1>: Success (0)\n',
        'DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that '
        "dataloader's workers are out of shared memory. Please try to raise your "
        'shared memory limit.',
    ],
)
def test_a_full_shared_memory_is_one_line(message):
    """As PyTorch says it in a container with too little."""
    with pytest.raises(UserError, match='shared memory, .* --shm-size=8g.*num_workers'):
        with naming_lost_files():
            raise RuntimeError(message)


def test_other_errors_stay_as_they_are():
    for error in (
        RuntimeError('something else'),
        RuntimeError('unable to open shared memory object </t>: Too many open files'),
        RuntimeError('OutOfResources: out of resource: shared memory, Required: 9'),
        ValueError('DataLoader worker'),
    ):
        with pytest.raises(type(error), match=str(error)):
            with naming_lost_files():
                raise error
