"""Images in WebDataset's tar files."""

from __future__ import annotations

import json
import os
import posixpath
import random
import re
import signal
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from math import ceil
from os.path import basename, dirname, expanduser, splitext
from pathlib import Path
from urllib.parse import urlparse

from mmengine.dist import get_dist_info
from mmengine.fileio import load
from torch.utils.data import IterableDataset, get_worker_info

from mmmixmim.registry import DATASETS
from mmmixmim.runtime.files import created
from mmmixmim.validation import (
    MissingDependencyError,
    MissingFileError,
    RefusedFileError,
    UnreadableFileError,
    UserError,
    check_positive_int,
)

from .image_files import find_images
from .image_folder import ImageFolder
from .raster_folder import RASTERS
from .readers import LOCAL_ONLY
from .samples import ENDLESS, build_pipeline

INDEX = 'shards.json'
_PART = '.part'  # ending of shards that are being written


@DATASETS.register_module()
class ShardStream(IterableDataset):
    """Images from WebDataset's tar files, local or over HTTP, without end.

    The order of the shards is drawn again for each pass. The ranks and their loader
    processes share the shards, and each shuffles its samples in a buffer. The order
    depends on ``seed`` and the number of processes alone. It takes an iteration-based
    loop, and ``sampler=None`` of the dataloader. A run that is resumed reads and drops
    what it has seen, so it goes on with the very next batch; that takes as long as
    loading did.

    Args:
        shards: A local folder of ``.tar`` files; an index ``shards.json`` of
            :func:`write_shards`, local or an address; the files or addresses as a list,
            or as one string with braces, as ``'http://host/{0000..0099}.tar'``.
            Addresses are read by curl.
        pipeline: Transforms, of which the first takes ``img_path`` and ``img_bytes``:
            :class:`LoadRandomResizedCrop` or :class:`LoadRasterCrop`.
        shuffle_buffer: Number of encoded images in memory from which the next one is
            drawn; 0 keeps the order inside shards. Defaults to 1000.
        seed: Seed of the order. Defaults to 0.
        held_out_shards: Number of shards that are left out, from the first one on.
            Defaults to 0.

    Raises:
        MissingDependencyError: If webdataset is not installed.
        MissingFileError: If there are no shards.
        RefusedFileError: If a shard is a command, or an index names anything but files
            beside it.
        UserError: If there are fewer shards than loader processes.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        pipeline: Sequence[dict | Callable],
        shuffle_buffer: int = 1000,
        seed: int = 0,
        held_out_shards: int = 0,
    ) -> None:
        _webdataset()  # an error here, not in a loader process
        self.shards = find_shards(shards)[held_out_shards:]
        self.pipeline = build_pipeline(pipeline)
        self.shuffle_buffer = shuffle_buffer
        self.seed = seed
        self.rank, self.world_size = get_dist_info()

    def __iter__(self) -> Iterator[dict]:
        for epoch in count():
            for sample in self._samples(epoch):
                result = self.pipeline(sample)
                if result is not None:  # else it cannot be read and is to be skipped
                    yield result

    def __len__(self) -> int:
        """More than any run takes; MMEngine's hooks ask for it."""
        return ENDLESS

    def _samples(self, epoch: int) -> Iterator[dict]:
        """One pass over the shards of this process."""
        wds = _webdataset()
        shards = list(self.shards)
        random.Random(f'{self.seed} {epoch}').shuffle(shards)
        # webdataset's splits trust RANK and WORKER of any other program.
        own, worker = shards[self.rank :: self.world_size], get_worker_info()
        if worker:
            own = own[worker.id :: worker.num_workers]
        if not own:
            raise UserError(
                f'There are {len(shards)} shards, fewer than loader processes on all '
                'ranks: lower num_workers, or write smaller shards.'
            )
        samples = _not_empty(read_shards(own), own[0])
        if self.shuffle_buffer:
            samples = wds.shuffle(
                self.shuffle_buffer,
                initial=self.shuffle_buffer,
                rng=random.Random(f'{self.seed} {epoch} {own[0]}'),
            )(samples)
        yield from samples


def find_shards(shards: str | Sequence[str]) -> list[str]:
    """List files and addresses of shards.

    Args:
        shards: See :class:`ShardStream`.

    Raises:
        MissingDependencyError: If webdataset is not installed.
        MissingFileError: If there are none, or a local one is missing.
        RefusedFileError: If one is a command, or an index names anything but files
            beside it.
        UserError: If braces are not closed, or an address is malformed.
    """
    if not isinstance(shards, str):
        found = [str(shard) for shard in shards]
    elif os.path.isdir(expanduser(shards)):
        found = sorted(map(str, Path(shards).expanduser().glob('*.tar')))
    elif shards.endswith('.json'):
        found = _of_index(shards, _load_index(expanduser(shards)))
    else:
        expand = _webdataset().shardlists.expand_urls
        try:
            found = expand(expanduser(shards))
        except (ValueError, AssertionError) as error:  # braces, variables
            raise UserError(f'The shards {shards!r} name no files: {error}.') from error
    commands = [each for each in found if _scheme(each) == 'pipe']
    if commands:
        raise RefusedFileError(
            f'The shard {commands[0]!r} is a command, which is not run: give files '
            'or addresses.'
        )
    missing = [each for each in found if '://' not in each and not Path(each).is_file()]
    if missing or not found:
        raise MissingFileError(
            f'There is no shard {(missing or [shards])[0]!r}: expected .tar files, '
            f'as `mixmim shard FOLDER OUT` writes them.'
        )
    return found


def _scheme(shard: str) -> str:
    try:
        return urlparse(shard).scheme
    except ValueError as error:
        raise UserError(f'The shard {shard!r} is no address: {error}.') from error


def read_shards(shards: Sequence[str]) -> Iterator[dict]:
    """Read the images of shards in their order.

    Args:
        shards: Files and addresses.

    Yields:
        ``img_path``, the address of the shard and the name in it; and ``img_bytes``,
        the contents.

    Raises:
        UnreadableFileError: If a shard cannot be read, or has a sample without image.
    """
    return map(_find_image, _read_samples(shards))


def count_images(shard: str) -> int:
    """Count the images of a local shard, by the headers alone.

    Raises:
        UnreadableFileError: If it cannot be read.
        UserError: If it is empty.
    """
    base_plus_ext = _webdataset().tariterators.base_plus_ext
    with _one_error([shard]), tarfile.open(shard) as tar:
        names = {base_plus_ext(each.name)[0] for each in tar if each.isfile()}
    count = len(names - {None})
    if not count:
        raise _empty(shard)
    return count


def some_images(shards: Sequence[str]) -> Iterator[dict]:
    """Read about 500 images of up to ten shards, evenly spaced.

    Args:
        shards: Files and addresses.

    Yields:
        As :func:`read_shards`.

    Raises:
        UserError: If one of these shards is empty or cannot be read.
    """
    chosen = shards[:: ceil(len(shards) / 10)]
    for shard in chosen:
        images = islice(read_shards([shard]), ceil(500 / len(chosen)))
        yield from _not_empty(images, shard)


def indexed_images(shards: Sequence[str]) -> int | None:
    """Number of images that the index beside shards states.

    Args:
        shards: Files and addresses.

    Returns:
        The number, or None if there is no index of these very shards.
    """
    path = posixpath.join(dirname(shards[0]), INDEX)
    try:
        index = _load_index(path)
        same = sorted(_of_index(path, index)) == sorted(shards)
    except UserError:
        return None
    count = index.get('images')
    return count if same and type(count) is int and count > 0 else None


def write_shards(
    folder: str | Path,
    out: str | Path,
    images_per_shard: int = 1000,
    seed: int | None = 0,
) -> list[str]:
    """Write the images of a folder to WebDataset's tar files, in random order.

    The files are stored as they are; the name of each in its shard is its path in the
    folder, where dots other than the last are underscores, and its number. Shards have
    the ending ``.part`` until all are complete, and are removed upon an error.

    Args:
        folder: Images at any depth.
        out: Folder for ``000000.tar``, ``000001.tar``, ... and the index
            ``shards.json``.
        images_per_shard: Number of images in each file but the last. Defaults to 1000.
        seed: Seed of the order, which mixes the classes of subfolders. None keeps the
            order of the names. Defaults to 0.

    Returns:
        The files.

    Raises:
        MissingDependencyError: If webdataset is not installed.
        MissingFileError: If there are no images.
        UserError: If ``out`` has shards already, or an image could not be read from
            a shard.
    """
    check_positive_int('images_per_shard', images_per_shard)
    wds = _webdataset()
    folder = Path(folder).expanduser()
    images = find_images(folder)
    _check_readable(images)
    out = Path(out).expanduser()
    if out.is_dir() and any(out.glob('*.tar')):
        raise UserError(f'{out} has shards already: choose another folder.')
    if seed is not None:
        random.Random(seed).shuffle(images)
    names = [f'{i:06}.tar' for i in range(ceil(len(images) / images_per_shard))]
    files = [out / name for name in (*names, INDEX)]
    parts = [file.with_name(f'{file.name}{_PART}') for file in files]
    with created(out):
        try:
            _write_tars(wds, folder, images, out, images_per_shard)
            parts[-1].write_text(json.dumps(dict(images=len(images), shards=names)))
            for part, file in zip(parts, files, strict=True):
                part.rename(file)
        except BaseException:  # what is incomplete would be taken for shards
            for file in (*parts, *files[:-1]):
                file.unlink(missing_ok=True)
            raise
    return list(map(str, files[:-1]))


def _check_readable(images: Sequence[Path]) -> None:
    """Raise if an image can be read from a local file only, as those by GDAL."""
    local = [each for each in images if each.name.lower().endswith(LOCAL_ONLY)]
    if local:
        raise UserError(
            f'{str(local[0])!r} cannot be read from a shard, nor can any image ending '
            f'in {", ".join(LOCAL_ONLY)}: convert {len(local)} of {len(images)} images '
            'to TIFF or .npy first.'
        )


def _write_tars(
    wds, folder: Path, images: Sequence[Path], out: Path, images_per_shard: int
) -> None:
    with wds.ShardWriter(
        f'{str(out).replace("%", "%%")}/%06d.tar{_PART}',
        maxcount=images_per_shard,
        maxsize=float('inf'),
        verbose=0,
        encoder=False,
    ) as writer:
        for number, path in enumerate(images):
            name, ending = splitext(path.relative_to(folder).as_posix())
            name = posixpath.join(dirname(name), basename(name).replace('.', '_'))
            if name.startswith('__'):  # webdataset leaves out __x__, also as a folder
                name = f'./{name}'
            writer.write(
                {
                    '__key__': f'{name}-{number}',
                    ending[1:].lower(): path.read_bytes(),
                }
            )


def _not_empty(images: Iterator[dict], shard: str) -> Iterator[dict]:
    """Raise unless there is an image."""
    first = next(images, None)
    if first is None:
        raise _empty(shard)
    yield first
    yield from images


def _empty(shard: str) -> UserError:
    return UserError(
        f'The shard {shard!r} holds no images: remove it, or write it again.'
    )


def _read_samples(shards: Sequence[str]) -> Iterator[dict]:
    """What webdataset reads; an error is one line."""
    tar = _webdataset().tariterators
    streams = _open(tar.url_opener(dict(url=url) for url in shards))
    with _one_error(shards):
        yield from tar.group_by_keys(tar.tar_file_expander(streams))


def _open(streams: Iterator[dict]) -> Iterator[dict]:
    """Open streams such that Ctrl-C, which reaches all processes, ends no curl."""
    while True:
        # A process that is started inherits what is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            stream = next(streams, None)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if stream is None:
            return
        yield stream


@contextmanager
def _one_error(shards: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, tarfile.TarError) as error:
        # webdataset appends the shard to the arguments.
        known = getattr(error, 'strerror', None)  # and maybe the file, such as curl
        reason = str(error if known else [*error.args, error][0])
        status = re.search(r': exit (-?\d+) \(read\)', reason)
        if status:
            reason = f'the program that fetches it ended with status {status[1]}'
        if isinstance(error, tarfile.ReadError) and '\n' in reason:
            reason = 'it is empty, damaged, or no tar file'  # one line per compression
        raise UnreadableFileError(
            f'A shard of {", ".join(shards[:3])}{", ..." * (len(shards) > 3)} cannot '
            f'be read: {(reason.splitlines() or [type(error).__name__])[0]}.'
        ) from error


def _find_image(sample: dict) -> dict:
    """The image of what webdataset read: a path for messages, and the contents.

    ``x.jpg`` comes before ``x.mask.png``, and before ``x.npy``, which may hold depth or
    features. ``x.png`` may be a mask: beside ``x.npy`` it is an error.
    """
    where = f'{sample["__url__"]}/{sample["__key__"]}'
    endings = [key for key in sample if not key.startswith('__')]
    found = [
        each
        for each in endings
        if _last(each) in RASTERS and _last(each) not in LOCAL_ONLY
    ]
    if not found:
        raise UnreadableFileError(
            f'The sample {where} has no image, but files ending in '
            f'{", ".join(endings)}.'
        )
    pictures = [each for each in found if _last(each) in ImageFolder.EXTENSIONS]
    alone = [each for each in found if '.' not in each]
    photos = [each for each in alone if _last(each) in ('.jpg', '.jpeg')]
    others = [each for each in alone if each not in photos]
    # Labels are no JPEGs, so beside one any array is something else.
    if photos and not any(each in pictures for each in others):
        alone = photos
    if len(alone) > 1:
        raise UnreadableFileError(
            f'The sample {where} has several images, ending in {", ".join(alone)}: '
            'keep one of them in the shard.'
        )
    ending = (alone or pictures or found)[0]
    return dict(img_path=f'{where}.{ending}', img_bytes=sample[ending])


def _last(ending: str) -> str:
    """The last part of an ending as '.png'."""
    return f'.{ending.rsplit(".", 1)[-1].lower()}'


def _of_index(path: str, index: dict) -> list[str]:
    """The shards of an index, which lie beside it."""
    # It may come from elsewhere, and webdataset runs addresses in a shell.
    for name in index['shards']:
        if not isinstance(name, str) or not re.fullmatch(r'[\w.-]+', name):
            raise RefusedFileError(
                f'The index {path} names the shard {name!r}: expected plain '
                'names of files beside it, as 000000.tar, of letters, digits, '
                'dots, hyphens and underscores.'
            )
    folder = dirname(expanduser(path))
    return [posixpath.join(folder, name) for name in index['shards']]


def _load_index(path: str) -> dict:
    try:
        index = load(path)
        if not isinstance(index['shards'], list):
            raise TypeError('shards is no list')
        return index
    except FileNotFoundError as error:
        raise MissingFileError(f'There is no index of shards {path!r}.') from error
    except (KeyError, TypeError, ValueError, OSError, ImportError) as error:
        raise UserError(f'{path} is no index of shards: {error}.') from error


def _webdataset():
    try:
        import webdataset
    except ImportError as error:
        raise MissingDependencyError(
            'Shards need webdataset, which is not installed: run `pip install '
            'webdataset`.'
        ) from error
    return webdataset
