"""Bad inputs of every kind, and the line that the user sees.

``python -m tests.bad_inputs`` runs the tools on all of them and writes
``docs/bad-input.md``.
"""

import os
import pickle
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import payloads
from .conftest import ROOT
from .scripts import CLASSIFY, FOLDER, NO_WORKERS, PRETRAIN, call

PAGE = ROOT / 'docs' / 'bad-input.md'
TOPICS = ('Data', 'Configs', 'Checkpoints', 'Options')
FINETUNE = ROOT / 'configs' / 'folder' / 'mixmim-tiny_1xb64-coslr-100e_folder.py'
TINY = [
    'model.backbone.arch.embed_dims=16',
    'model.backbone.arch.depths=[1,1,1,1]',
    'model.backbone.arch.num_heads=[1,1,1,1]',
]


@dataclass
class Case:
    """A bad input.

    Attributes:
        topic: One of :data:`TOPICS`.
        what: What is wrong.
        tool: The script in ``tools``.
        arguments: Its arguments. ``{}`` stands for the folder of the case.
        prepare: Writes the files of the case into the folder.
    """

    topic: str
    what: str
    tool: str
    arguments: list
    prepare: Callable[[Path], None] = lambda folder: None

    def line(self, folder: Path) -> str:
        """Run the tool and return the last line that it prints to stderr."""
        self.prepare(folder)
        arguments = [str(each).replace('{}', str(folder)) for each in self.arguments]
        result = call(self.tool, *arguments, cwd=folder)
        if result.returncode == 0:
            raise AssertionError(f'{self.what}: accepted\n{result.stdout[-2000:]}')
        if 'Traceback' in result.stderr:
            raise AssertionError(f'{self.what}: a traceback\n{result.stderr}')
        line = result.stderr.rstrip('\n').splitlines()[-1]
        return line.replace(str(folder), 'DIR').replace(f'{ROOT}/', '')


# Files


def nothing(folder: Path) -> None:
    """Write nothing."""


def write_images(folder: Path, names: tuple[str, ...] = ('a.jpg', 'b.jpg', 'c.jpg')):
    """Write small photos."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(pixels).save(folder / name)


def with_image(name: str | bytes, data: bytes) -> Callable[[Path], None]:
    """Write a folder of images, one of them with this content."""

    def prepare(folder: Path) -> None:
        write_images(folder / 'images')
        path = os.path.join(os.fsencode(folder / 'images'), os.fsencode(name))
        Path(os.fsdecode(path)).write_bytes(data)

    return prepare


def file(name: str, data: bytes = b'') -> Callable[[Path], None]:
    """Write a file."""
    return lambda folder: (folder / name).write_bytes(data) and None


def huge_png() -> bytes:
    """A PNG whose header claims 100000x100000 pixels."""
    data = b'\x89PNG\r\n\x1a\n'
    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    for kind, content in ((b'IHDR', header), (b'IDAT', b''), (b'IEND', b'')):
        data += struct.pack('>I', len(content)) + kind + content
        data += struct.pack('>I', zlib.crc32(kind + content))
    return data


def cut_photo(folder: Path) -> None:
    """Write a folder of images of which one is truncated."""
    write_images(folder / 'images')
    data = (folder / 'images' / 'a.jpg').read_bytes()
    (folder / 'images' / 'a.jpg').write_bytes(data[: len(data) // 2])


def float_image(folder: Path) -> None:
    """Write a folder of images of which one has floating-point pixels."""
    write_images(folder / 'images')
    values = np.zeros((64, 64), np.float32)
    Image.fromarray(values).save(folder / 'images' / 'd.tif')


def no_image(folder: Path) -> None:
    """Write a folder without images."""
    (folder / 'images').mkdir()
    (folder / 'images' / 'notes.txt').write_text('no image')


def empty_images(folder: Path) -> None:
    """Write a folder of nothing but an empty image: of several, any may be named."""
    (folder / 'images').mkdir()
    (folder / 'images' / '01.jpg').touch()


def classes(train: tuple, val: tuple, damage: bool = False) -> Callable[[Path], None]:
    """Write labelled images."""

    def prepare(folder: Path) -> None:
        for split, names in (('train', train), ('val', val)):
            for name in names:
                write_images(folder / split / name, ('a.jpg',))
        if damage:
            (folder / 'val' / val[0] / 'a.jpg').write_bytes(b'no image')

    return prepare


def checkpoint(**content) -> Callable[[Path], None]:
    """Write a checkpoint."""
    return lambda folder: torch.save(content, folder / 'a.pth')


def cut_checkpoint(folder: Path) -> None:
    """Write a checkpoint and cut it."""
    torch.save(dict(state_dict=dict(a=torch.ones(1000))), folder / 'a.pth')
    data = (folder / 'a.pth').read_bytes()
    (folder / 'a.pth').write_bytes(data[:2000])


def bomb(folder: Path) -> None:
    """Write a small checkpoint that unpacks to 40 MB."""
    torch.save(dict(state_dict=dict(a=torch.zeros(10_000_000))), folder / 'whole.pth')
    with (
        zipfile.ZipFile(folder / 'whole.pth') as source,
        zipfile.ZipFile(folder / 'a.pth', 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


def attack(folder: Path) -> None:
    """Write a checkpoint with code in it."""
    payloads.pickle_file(
        folder / 'a.pth', folder / 'code has run', dict(a=torch.ones(1))
    )


# Commands


def train_folder(what: str, prepare=nothing, *options: str) -> Case:
    """Pretrain on a folder of images."""
    common = ['train_dataloader.dataset.data_root={}/images', NO_WORKERS, *TINY]
    common += ['model.backbone.img_size=64', 'model.neck.decoder_depth=1']
    common += ['train_dataloader.dataset.pipeline.0.scale=64']
    arguments = [FOLDER, '--work-dir', '{}/work', '--cfg-options', *common, *options]
    return Case('Data', what, 'train.py', arguments, prepare)


def finetune(what: str, prepare, *options: str) -> Case:
    """Fine-tune on a folder of labelled images."""
    folders = dict(train='train', val='val', test='val')
    roots = [
        f'{split}_dataloader.dataset.data_root={{}}/{folder}'
        for split, folder in folders.items()
    ]
    workers = [f'{split}_dataloader.num_workers=0' for split in folders]
    small = [*TINY, 'model.head.in_channels=128', 'model.backbone.init_cfg=None']
    small += [
        'train_cfg.max_epochs=1',
        'model.backbone.img_size=32',
        'train_dataloader.dataset.pipeline.1.scale=32',
    ]
    arguments = [FINETUNE, '--work-dir', '{}/work', '--cfg-options', *roots, *workers]
    return Case('Data', what, 'train.py', [*arguments, *small, *options], prepare)


def inaturalist(what: str, name: str, data: bytes) -> Case:
    """Fine-tune on iNaturalist with an annotation file."""
    options = [
        'train_dataloader.dataset.type=INaturalist',
        'train_dataloader.dataset.data_root={}',
        f'train_dataloader.dataset.ann_file={name}',
        'model.backbone.init_cfg=None',
        NO_WORKERS,
    ]
    arguments = [FINETUNE, '--work-dir', '{}/work', '--cfg-options', *options]
    prepare = file(name, data) if data else nothing
    return Case('Data', what, 'train.py', arguments, prepare)


def config(what: str, *options: str) -> Case:
    """Pretrain on the digits with an option of the config."""
    arguments = [PRETRAIN, '--work-dir', '{}/work', '--cfg-options', NO_WORKERS]
    return Case('Configs', what, 'train.py', [*arguments, *options])


def config_file(what: str, text: str) -> Case:
    """Train with a config file."""
    prepare = file('config.py', text.encode())
    return Case('Configs', what, 'train.py', ['{}/config.py'], prepare)


def probe(what: str, prepare, path: str = '{}/a.pth') -> Case:
    """Probe a checkpoint."""
    return Case('Checkpoints', what, 'linear_probe.py', [CLASSIFY, path], prepare)


def train(topic: str, what: str, prepare, *arguments: str) -> Case:
    """Pretrain on the digits."""
    return Case(
        topic,
        what,
        'train.py',
        [PRETRAIN, *arguments, '--cfg-options', NO_WORKERS, 'train_cfg.max_epochs=1'],
        prepare,
    )


ATTACK = pickle.dumps(payloads.Attack('code has run'))
CASES = [
    train_folder('no such folder'),
    train_folder('a folder without images', no_image),
    train_folder('a file in place of the folder', file('images', b'x')),
    train_folder('one of four images is a text file', with_image('d.png', b'text')),
    train_folder('one of four images is empty', with_image('d.png', b'')),
    train_folder('one of three images is truncated', cut_photo),
    train_folder(
        '100000x100000 pixels in a few bytes', with_image('d.png', huge_png())
    ),
    train_folder(
        'PostScript, which Pillow would run', with_image('d.jpg', b'%!PS-Adobe-3.0\n')
    ),
    train_folder('floating-point pixels', float_image),
    train_folder(
        'terminal codes, a line break and no UTF-8 in a name',
        with_image(b'\x1b[31m\n\xff.jpg', b'text'),
    ),
    train_folder('nothing but an empty file', empty_images),
    train_folder(
        'crops that cells do not divide',
        lambda folder: write_images(folder / 'images'),
        'train_dataloader.dataset.pipeline.0.scale=65',
    ),
    finetune(
        'a class that only training has',
        classes(('a', 'b'), ('a',)),
        'model.head.num_classes=2',
        'model.data_preprocessor.num_classes=2',
    ),
    finetune('another number of classes', classes(('a', 'b'), ('a', 'b'))),
    finetune(
        'a damaged image for validation',
        classes(('a', 'b'), ('a', 'b'), damage=True),
        'model.head.num_classes=2',
        'model.data_preprocessor.num_classes=2',
    ),
    inaturalist('no annotation file', 'nowhere.json', b''),
    inaturalist('annotations without categories', 'a.json', b'{"images": []}'),
    inaturalist('an annotation file that is a pickle with code', 'a.pkl', ATTACK),
    Case('Configs', 'no such config', 'train.py', ['{}/nowhere.py']),
    config_file('a syntax error', 'model = dict(\n'),
    config_file('an empty file', ''),
    config_file('a base that does not exist', "_base_ = 'nowhere.py'\n"),
    config_file('an error in the file', 'model = 1 / 0\n'),
    config('an unknown type', 'model.backbone.type=NoSuchEncoder'),
    config('an unknown argument', 'model.backbone.img_sizes=32'),
    config('an unknown entry', 'train_cfgs.max_epochs=1'),
    config('an unknown arch', 'model.backbone.arch=giant'),
    config('weights without a type', 'model.backbone.init_cfg.checkpoint=a.pth'),
    config('a mask ratio above 1', 'model.mask_ratio=1.5'),
    config('nine images in a mixture', 'model.num_images=9'),
    config('an unknown filling', 'model.filling=paint'),
    config(
        'images that cells do not divide',
        'train_dataloader.dataset.pipeline.1.scale=30',
    ),
    config(
        'other channels than the images',
        'model.data_preprocessor=None',
        'model.backbone.in_channels=3',
    ),
    config(
        'batches that are lists',
        'train_dataloader.collate_fn.type=pseudo_collate',
    ),
    config('no optimizer', 'optim_wrapper=None'),
    config('a learning rate that is text', 'optim_wrapper.optimizer.lr=fast'),
    config('an empty batch', 'train_dataloader.batch_size=0'),
    config('a seed below zero', 'randomness.seed=-1'),
    config('a negative number of workers', 'train_dataloader.num_workers=-1'),
    config(
        'a share of bad images above 1', 'default_hooks.unreadable_images.max_share=2'
    ),
    config(
        'a module that cannot be imported', 'custom_imports.imports=[no_such_module]'
    ),
    probe('no such file', nothing),
    probe('an empty file', file('a.pth')),
    probe('a text file', file('a.pth', b'not a checkpoint')),
    probe('a truncated file', cut_checkpoint),
    probe('a folder', lambda folder: (folder / 'a.pth').mkdir()),
    probe('code in the file', attack),
    probe('40 KB that unpack to 40 MB', bomb),
    probe('an address that does not answer', nothing, 'http://127.0.0.1:9/a.pth'),
    probe('a file without weights', checkpoint(epoch=3)),
    probe('weights of another model', checkpoint(state_dict=dict(a=torch.ones(1)))),
    Case(
        'Checkpoints',
        'code in the file, testing',
        'test.py',
        [CLASSIFY, '{}/a.pth', '--work-dir', '{}/work'],
        attack,
    ),
    Case(
        'Checkpoints',
        'weights of another model, testing',
        'test.py',
        [CLASSIFY, '{}/a.pth', '--work-dir', '{}/work'],
        checkpoint(state_dict=dict(a=torch.ones(1))),
    ),
    Case(
        'Checkpoints',
        'code in the file, converting',
        'convert_checkpoint.py',
        ['{}/a.pth', '{}/b.pth'],
        attack,
    ),
    Case(
        'Checkpoints',
        'code in the file, pictures',
        'visualize_reconstruction.py',
        [PRETRAIN, '{}/a.pth'],
        attack,
    ),
    Case(
        'Checkpoints',
        'the source as target',
        'convert_checkpoint.py',
        ['{}/a.pth', '{}/a.pth'],
        attack,
    ),
    train(
        'Checkpoints',
        'code in the file, resuming',
        attack,
        '--resume',
        '{}/a.pth',
        '--work-dir',
        '{}/work',
    ),
    train(
        'Checkpoints',
        'resuming from weights alone',
        checkpoint(state_dict={}),
        '--resume',
        '{}/a.pth',
        '--work-dir',
        '{}/work',
    ),
    train(
        'Checkpoints',
        'resuming from no such file',
        nothing,
        '--resume',
        '{}/nowhere.pth',
        '--work-dir',
        '{}/work',
    ),
    train(
        'Options',
        'a work folder below a file',
        file('a', b'x'),
        '--work-dir',
        '{}/a/work',
    ),
    train(
        'Options',
        'scaling the learning rate without a base',
        nothing,
        '--work-dir',
        '{}/work',
        '--auto-scale-lr',
    ),
    Case('Options', 'a pretraining config to test', 'test.py', [PRETRAIN, 'a.pth']),
    Case(
        'Options',
        'predictions as JSON',
        'test.py',
        [CLASSIFY, 'a.pth', '--out', 'a.json'],
    ),
    Case('Options', 'a pretraining config to probe', 'linear_probe.py', [FOLDER]),
    Case(
        'Options',
        'labels per class as text',
        'linear_probe.py',
        [CLASSIFY, '--samples-per-class', 'few'],
    ),
    Case(
        'Options',
        'a seed that is too large',
        'linear_probe.py',
        [CLASSIFY, '--seed', str(2**32)],
    ),
    *(
        Case('Options', 'a seed below zero', tool, [*arguments, '-1'])
        for tool, arguments in (
            ('visualize_reconstruction.py', [PRETRAIN, 'a.pth', '--seed']),
            ('what_predicts.py', ['--seeds']),
            ('compare_methods.py', ['--seeds']),
        )
    ),
    Case(
        'Options',
        'no pictures',
        'visualize_reconstruction.py',
        [PRETRAIN, 'a.pth', '--num', '0'],
    ),
    Case(
        'Options',
        'images of a negative size',
        'get_flops.py',
        [CLASSIFY, '--shape', '-32'],
    ),
    Case(
        'Options',
        'an option of the config without a value',
        'train.py',
        [PRETRAIN, '--cfg-options', 'model.mask_ratio'],
    ),
]


def run_cases(topic: str) -> list[tuple[Case, str]]:
    """Run the cases of a topic, each in a folder of its own."""
    results = []
    for case in CASES:
        if case.topic != topic:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            results.append((case, case.line(folder)))
            if (folder / 'code has run').exists():
                raise AssertionError(f'{case.what}: code has run')
    return results


def table(topic: str, results: list[tuple[Case, str]]) -> str:
    """Write the table of a topic."""
    text = f'## {topic}\n\n| input | tool | line |\n|---|---|---|\n'
    for case, line in results:
        line = line.replace('|', '\\|')
        text += f'| {case.what} | `{case.tool}` | `` {line} `` |\n'
    return text


INTRODUCTION = """# What bad inputs say

Each input below was given to the tool that the table names, and ended it with the line
shown. `DIR` stands for the folder of the input. The commands of `mixmim` end with one
line too; [command.md](command.md#if-it-stops) lists some. `tests/test_bad_input.py`
compares this page, which `python -m tests.bad_inputs` writes, with what the tools say.
[safety.md](safety.md) explains which files are trusted.
"""

if __name__ == '__main__':
    tables = [table(topic, run_cases(topic)) for topic in TOPICS]
    PAGE.write_text('\n'.join((INTRODUCTION, *tables)))
