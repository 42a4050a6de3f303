"""Look at a folder of images before training: what it holds and what is wrong."""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import median

from mmmixmim.runtime import write_json
from mmmixmim.validation import MissingFileError, UnreadableFileError, UserError

from .duplicates import find_duplicates
from .image_files import fingerprint
from .no_data import odd_value
from .pillow_limits import open_picture
from .readers import EXTENSIONS, ImageReader, middle_of, open_image
from .readers.base import naming
from .samples import as_sample, has_mask, open_sample
from .subsets import evenly_spaced

_SAMPLE = 500  # images whose pixels are looked at
_THREADS = 8
_CHUNK = 10_000  # files that the threads are given at a time
_EXAMPLES = 20  # paths that are kept of each kind of problem
# TIFFs that Pillow, which loads plain pictures, does not read as we do:
_STACK = 'TIFF stack'  # several pages, of which it reads the first
_BANDS = 'TIFF of bands'  # no colours, or a compression or size that it refuses
_RARE = 0.01  # share of those among pictures up to which they are left out


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of an image file says.

    Attributes:
        format: Name of the format, such as 'JPEG'.
        height: In pixels.
        width: In pixels.
        channels: Number of channels, alpha included.
        bits: Bits per channel.
        is_float: Whether the values are floats.
    """

    format: str
    height: int
    width: int
    channels: int
    bits: int
    is_float: bool


@dataclass
class Scan:
    """What a list of image files holds.

    Attributes:
        root: The folder or list file that was scanned.
        images: Number of readable images.
        bytes: Their total size.
        formats: Number of images of each format.
        channels: Number of images by number of channels.
        bits: Number of images by bits per channel.
        floats: Number of images whose values are floats, by bits per channel.
        short_sides: Smallest, median and largest shorter side, in pixels.
        unreadable: Number of files that are no readable image.
        reason: Why the first of them cannot be read; '' if there are none.
        duplicates: Number of images whose content another one has too.
        sampled: Number of images whose pixels were looked at.
        constant: Number of those in which all pixels are the same.
        not_finite: Number of those with pixels that are NaN, infinite or huge.
        odd_value: Such a value; None if there is none.
        examples: Some paths for each kind of problem, and all unreadable files.
        fingerprint: Changes when files are added, removed or rewritten.
        as_arrays: Whether the channels are kept though the files are pictures.
        shards: Number of shards that hold the images; 0 if they are files.
        first_shard: Number of images in the first of them.
    """

    root: str
    images: int = 0
    bytes: int = 0
    formats: dict[str, int] = field(default_factory=dict)
    channels: dict[int, int] = field(default_factory=dict)
    bits: dict[int, int] = field(default_factory=dict)
    floats: dict[int, int] = field(default_factory=dict)
    short_sides: tuple[int, int, int] = (0, 0, 0)
    unreadable: int = 0
    reason: str = ''
    duplicates: int = 0
    sampled: int = 0
    constant: int = 0
    not_finite: int = 0
    odd_value: str | None = None
    examples: dict[str, list[str]] = field(default_factory=dict)
    fingerprint: str = ''
    as_arrays: bool = False
    shards: int = 0
    first_shard: int = 0

    def add_problem(self, kind: str, example: Path | str, reason: str = '') -> None:
        """Count an image under the name of a field, such as 'unreadable'."""
        self.reason = self.reason or reason
        setattr(self, kind, getattr(self, kind) + 1)
        self.add_example(kind, example)

    def add_example(self, kind: str, example: Path | str) -> None:
        """Keep an example of its kind, up to a limit."""
        kept = self.examples.setdefault(kind, [])
        # Training needs the paths of all unreadable files, but not of those in shards.
        if len(kept) < _EXAMPLES or (kind == 'unreadable' and not self.shards):
            kept.append(str(example))

    def save(self, path: Path) -> None:
        """Write the scan to a JSON file."""
        write_json(path, asdict(self))

    @property
    def is_raster(self) -> bool:
        """Whether the channels are not those of ordinary pictures.

        Those have 8 bits and at most four channels on one page, are read as RGB, and
        have the endings that :class:`ImageFolder` finds.
        """
        plain = set(self.bits) <= {1, 8} and set(self.channels) <= {1, 2, 3, 4}
        other = {each[1:].upper() for each in EXTENSIONS} | {_STACK, _BANDS}
        return self.as_arrays or not plain or bool(other & set(self.formats))

    @classmethod
    def load(cls, path: Path) -> Scan | None:
        """Read a scan back; None if there is none or it is damaged."""
        try:
            content = json.loads(path.read_text())
            for name in ('channels', 'bits', 'floats'):
                content[name] = {int(k): n for k, n in content[name].items()}
            return cls(**content | dict(short_sides=tuple(content['short_sides'])))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def scan_images(
    root: Path, files: list[Path], progress: Callable[[], object] = lambda: None
) -> Scan:
    """Read the headers of all images, and the pixels of some, drawn with a fixed seed.

    Args:
        root: Where the files come from; for messages and the cache.
        files: The image files.
        progress: Called once for each file.
    """
    scan = Scan(str(root), fingerprint=fingerprint(files))
    found = {}  # readable file -> header
    # Around all threads: the filters are those of the process.
    with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
        warnings.simplefilter('ignore')
        waiting = iter(files)
        while chunk := list(islice(waiting, _CHUNK)):
            for path, header in zip(chunk, pool.map(_try_header, chunk), strict=True):
                progress()
                if isinstance(header, str):
                    scan.add_problem('unreadable', path, header)
                else:
                    found[path] = header
        chosen = sorted(random.Random(0).sample(list(found), min(_SAMPLE, len(found))))
        for path, (problem, value, reason) in zip(
            chosen, pool.map(_look_at_pixels, chosen), strict=True
        ):
            scan.odd_value = scan.odd_value or value
            if problem:
                scan.add_problem(problem, path, reason)
            if problem == 'unreadable':
                del found[path]
    scan.sampled = len(chosen)
    for path in _odd_tiffs(found):
        scan.add_problem('unreadable', path, f'Pillow does not read {str(path)!r}.')
        del found[path]
    scan.images = len(found)
    readable = list(found)
    if found:
        _summarise(scan, found)
    scan.bytes = sum(path.stat().st_size for path in readable)
    for path in find_duplicates(readable):
        scan.add_problem('duplicates', path)
    return scan


def scan_dataset(name: str, dataset: Sequence) -> Scan:
    """Look at some items of a Python dataset, evenly spaced.

    Args:
        name: What it is, for messages.
        dataset: Anything with a length and an index, see :func:`as_sample`.

    Raises:
        UserError: If an item is missing or no image.
    """
    scan = Scan(name, images=len(dataset), as_arrays=True)
    indices = evenly_spaced(len(dataset), _SAMPLE)

    def samples() -> Iterator[tuple[str, dict]]:
        for i in indices:
            name, sample = f'item {i}', get_sample(dataset, i)
            scan.add_example('with mask' if has_mask(sample) else 'without mask', name)
            yield name, sample

    return _look_at_samples(scan, samples(), 'array')


def get_sample(dataset: Sequence, index: int) -> dict:
    """Return an item of a dataset as :func:`as_sample` does.

    Raises:
        UserError: If there is no such item, or it is no image.
    """
    try:
        item = dataset[index]
    except KeyError as error:
        if error.args != (index,):  # raised by the dataset for a reason of its own
            raise
        raise UserError(
            f'The {type(dataset).__name__} has no item {index} of {len(dataset)}: '
            'expected items 0, 1, ... Pass a list, as series.tolist() of pandas gives.'
        ) from error
    return as_sample(item)


def scan_shards(name: str, shards: int, images: int, samples: Iterable[dict]) -> Scan:
    """Look at some images of shards.

    Args:
        name: What was given, for messages.
        shards: Number of shards.
        images: Number of images in all of them.
        samples: Some images, see :func:`~mmmixmim.datasets.shards.read_shards`.

    Raises:
        UserError: If none of them can be read.
    """
    scan = Scan(name, images=images, shards=shards)
    samples = ((each['img_path'], each) for each in samples)
    _look_at_samples(scan, samples, damaged=UnreadableFileError)
    if not scan.sampled:
        raise UserError(
            f'None of the {scan.unreadable} images that were looked at can be read: '
            f'write the shards again. {scan.reason}'
        )
    return scan


def read_header(path: Path) -> Header:
    """Read the header of an image file.

    Raises:
        UserError: If it cannot be read.
    """
    with open_image(path) as image:
        return _header(image, _format(path), path)


def check_scan(scan: Scan, no_data: str | None = None, masked: bool = False) -> None:
    """Raise if nothing can be learned from the images, or ``no_data`` does not fit.

    Args:
        scan: The scan.
        no_data: Value of pixels without data, or 'nan'. Defaults to None: all are.
        masked: Whether images have masks, which may cover pixels that are not finite.
            Defaults to False.

    Raises:
        UserError: With the number, an example and the way out.
    """
    if scan.images < 2:
        found = 'one readable image' if scan.images else 'no readable image'
        more = ''
        if scan.unreadable:
            more = f' ({scan.unreadable} unreadable: {scan.reason.rstrip(".")})'
        raise UserError(
            f'{scan.root!r} holds {found}{more}, and training needs at least 2, '
            'because images are mixed in pairs: add images.'
        )
    if scan.not_finite and no_data is None and not masked:
        raise UserError(
            f'{scan.not_finite} of {scan.sampled} images that were looked at have '
            f'pixels of the value {scan.odd_value}, which is no measurement, such as '
            f'{scan.examples["not_finite"][0]!r}: if they are pixels without data, say '
            f"--no-data={scan.odd_value} (no_data='{scan.odd_value}' in Python); else "
            'remove these files.'
        )
    if scan.constant == scan.sampled:
        raise UserError(
            f'All {scan.sampled} images that were looked at are constant, such as '
            f'{scan.examples["constant"][0]!r}: there is nothing to learn from. Check '
            'how the files were written.'
        )
    if not scan.is_raster:
        if no_data is not None:
            raise UserError(
                'no_data (--no-data) is for images that are read with their channels '
                'and values, not for pictures of 8 bits, which are read as RGB: leave '
                'it out.'
            )
        return
    for what, counts in (('channels', scan.channels), ('bits', scan.bits)):
        if len(counts) > 1:
            listed = ', '.join(f'{n} with {count}' for count, n in counts.items())
            rarest = min(counts, key=counts.get)
            example = scan.examples[f'{rarest} {what}'][0]
            raise UserError(
                f'The images differ in their number of {what}: {listed}, such as '
                f'{example!r}. Put images of different kinds into different folders.'
            )


def _look_at_samples(
    scan: Scan,
    samples: Iterable[tuple[str, dict]],
    kind: str | None = None,
    damaged: type[Exception] | tuple = (),
) -> Scan:
    """Complete a scan by what samples with their names hold.

    Args:
        scan: The scan.
        samples: Names and samples.
        kind: Format of all. Defaults to None: by the ending of the name.
        damaged: Errors that are counted as unreadable. Defaults to none.
    """
    found = {}
    for item, sample in samples:
        reason = ''
        try:
            with naming(item), open_sample(sample) as image:
                problem, value = _problem(image)
                scan.odd_value = scan.odd_value or value
                source = BytesIO(sample.get('img_bytes', b''))
                found[item] = _header(image, kind or _format(Path(item)), source)
        except damaged as error:
            problem, reason = 'unreadable', str(error)
        if problem:
            scan.add_problem(problem, item, reason)
    scan.sampled = len(found)
    if found:
        _summarise(scan, found)
    return scan


def _format(path: Path) -> str:
    name = path.suffix[1:].upper()
    return dict(JPG='JPEG', TIF='TIFF').get(name, name)


def _header(image: ImageReader, name: str, source: Path | BytesIO) -> Header:
    bits = 1 if image.dtype == bool else 8 * image.dtype.itemsize
    if name == 'TIFF' and image.channels > image.samples:
        name = _STACK
    elif name == 'TIFF' and bits <= 8 and image.channels <= 4:
        # Pillow takes -1 for 255.
        picture = image.dtype.kind != 'i' and _is_picture(source)
        name = 'TIFF' if picture else _BANDS
    return Header(name, *image.size, image.channels, bits, image.dtype.kind == 'f')


def _summarise(scan: Scan, found: dict[Path | str, Header]) -> None:
    """Count what the headers say, and keep examples."""
    names, headers = list(found), list(found.values())
    scan.formats = dict(Counter(each.format for each in headers))
    scan.channels = dict(Counter(each.channels for each in headers))
    scan.bits = dict(Counter(each.bits for each in headers))
    scan.floats = dict(Counter(each.bits for each in headers if each.is_float))
    short = [min(each.height, each.width) for each in headers]
    scan.short_sides = (min(short), round(median(short)), max(short))
    scan.add_example('smallest', names[short.index(min(short))])
    for name, header in found.items():
        scan.add_example(f'{header.channels} channels', name)
        scan.add_example(f'{header.bits} bits', name)


def _is_picture(source: Path | BytesIO) -> bool:
    """Whether Pillow reads a TIFF."""
    try:
        with open_picture(source) as image:
            # It opens this compression, and then cannot decode it.
            return image.info.get('compression') != 'webp'
    except Exception:  # any that a decoder raises
        return False


def _odd_tiffs(found: dict[Path, Header]) -> list[Path]:
    """The TIFFs of bands, if they are few among pictures."""
    odd = [path for path, header in found.items() if header.format == _BANDS]
    if not 0 < len(odd) <= _RARE * len(found):
        return []
    others = Scan('')
    _summarise(others, {path: found[path] for path in found.keys() - odd})
    return [] if others.is_raster else odd


def readable_header(path: Path) -> Header | None:
    """Return the header of an image, None if it or the pixels cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        header = _try_header(path)
        if isinstance(header, str) or _look_at_pixels(path)[0] == 'unreadable':
            return None
    return header


def _try_header(path: Path) -> Header | str:
    """Return the header, or why it cannot be read."""
    try:
        with naming(path):  # any damage of the file, in any library
            str(path).encode()  # lists of files are text, with a name a line
            if {'\n', '\r'} & {*str(path)}:
                raise UnreadableFileError('its path has a line break: rename it')
            return read_header(path)
    except (MissingFileError, UnreadableFileError) as error:
        return str(error)


def _look_at_pixels(path: Path) -> tuple[str | None, str | None, str]:
    """What is wrong with an image's pixels, the odd value, why they are unreadable."""
    try:
        with naming(path), open_image(path) as image:
            return *_problem(image), ''
    except (MissingFileError, UnreadableFileError) as error:
        return 'unreadable', None, str(error)


def _problem(image: ImageReader) -> tuple[str | None, str | None]:
    pixels = image.read(middle_of(image.size))
    value = odd_value(pixels)
    if value is not None:
        return 'not_finite', value
    return 'constant' if (pixels == pixels[:1, :1]).all() else None, None
