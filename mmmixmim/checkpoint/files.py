"""Read and write checkpoint files without running code in them."""

from __future__ import annotations

import hashlib
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.fileio import get_local_path
from torch import Tensor
from torch.hub import download_url_to_file, get_dir
from torch.serialization import safe_globals

from mmmixmim.log import warn
from mmmixmim.runtime.files import replacing
from mmmixmim.validation import (
    TRUST_VARIABLE,
    MissingFileError,
    RefusedFileError,
    UnreadableFileError,
    UserError,
    is_trusted,
)

from .formats import FILE_KEYS, FORMATS
from .stand_ins import STAND_INS, rebuild

# Of a file whose archive is compressed. PyTorch compresses nothing.
MAX_INFLATION = 4
# Of what PyTorch lets a file call, these fill any amount of memory.
_FILLS_MEMORY = {
    'builtins.bytearray',
    '__builtin__.bytearray',
    'torch._utils._rebuild_device_tensor_from_cpu_tensor',
}
# What PyTorch says of files that would call, make or change something.
_CODE = re.compile(r'GLOBAL|reduce|[Cc]reate|build|SETITEM|persistent', re.IGNORECASE)


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read a checkpoint file to the CPU without running code in it.

    Args:
        path: A file of the authors' code (``{'model': ...}``), of an OpenMMLab
            runner (``{'state_dict': ...}``), or a bare state dict. Or the address of
            one: PyTorch's cache keeps files from http addresses, MMEngine's file
            backends fetch the rest.

    Returns:
        Parameters and buffers by name, with PyTorch's ``_metadata``; and what else the
        file holds, where objects other than plain values are empty.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is not a checkpoint, or holds objects that could run code and
            is not trusted, see :func:`~mmmixmim.validation.is_trusted`.
    """
    content = read_file(path)
    extras = {}
    if isinstance(content, dict):
        for key in FILE_KEYS:
            if isinstance(content.get(key), dict):
                extras |= {k: v for k, v in content.items() if k != key}
                content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise UserError(
            f'{path} holds no weights: expected a dict of tensors, itself or below one '
            f'of the keys {", ".join(FILE_KEYS)}.'
        )
    weights = OrderedDict(content)
    weights._metadata = getattr(content, '_metadata', {})
    return unwrap(weights), extras


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read only the weights, see :func:`read_checkpoint`."""
    return read_checkpoint(path)[0]


def unwrap(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of DDP and ``torch.compile`` if all names have them."""
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if state and all(name.startswith(prefix) for name in state):
            metadata = getattr(state, '_metadata', None) or {}
            state = OrderedDict((n.removeprefix(prefix), v) for n, v in state.items())
            state._metadata = {n.removeprefix(prefix): m for n, m in metadata.items()}
    return state


def read_file(path: str | Path, map_location=None) -> object:
    """Read whatever a checkpoint file holds without running code in it.

    Args:
        path: A file or an address, see :func:`read_checkpoint`.
        map_location: Where the tensors go, as for ``torch.load``. Defaults to None:
            to the CPU.

    Returns:
        Plain values, arrays and log histories; other objects are empty. All of it if
        the file is trusted.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is damaged, or holds objects that could run code and is not
            trusted.
    """
    path = str(path)
    location = 'cpu' if map_location is None else map_location
    if path.startswith(('http://', 'https://')):
        file = download(path)
        try:
            return _load(file, path, location)
        except ValueError:
            file.unlink(missing_ok=True)  # else it would stay in the cache
            raise
    if '://' in path:
        with get_local_path(path) as file:
            return _load(Path(file), path, location)
    file = Path(path).expanduser()
    if is_trusted(file):
        return _load_trusted(file, location)
    try:
        return _load(file, path, location)
    except RefusedFileError as error:
        raise RefusedFileError(
            f'{error} If you trust where it comes from, set the environment variable '
            f'{TRUST_VARIABLE}={path}'
        ) from error


def download(url: str) -> Path:
    """Fetch a file to PyTorch's cache unless it is there.

    Raises:
        MissingFileError: If it cannot be fetched.
    """
    # Addresses of different files may end in the same name, or in none.
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = url.split('?')[0].rstrip('/').rsplit('/', 1)[-1][-100:]
    file = Path(get_dir(), 'checkpoints', f'{digest}-{name}')
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(file))
        except OSError as error:
            raise MissingFileError(f'{url} cannot be fetched: {error}') from error
    return file


def _load(file: Path, path: str, location) -> object:
    if not file.is_file():
        what = 'is a folder' if file.is_dir() else 'is no regular file'
        what = what if file.exists() else 'does not exist'
        raise MissingFileError(f'There is no checkpoint file {path!r}: it {what}.')
    try:
        if not file.stat().st_size:
            raise ValueError('it is empty')
        _check_archive(file)
        _check_names(file, path)
        with safe_globals(STAND_INS), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the pickle protocol
            content = rebuild(torch.load(file, location, weights_only=True))
        _check_tensors(content, file.stat().st_size)
    except RefusedFileError:
        raise
    except UnpicklingError as error:
        reason = _reason(error)
        if not _CODE.search(reason):
            raise UserError(f'{path} is not a PyTorch checkpoint: {reason}') from error
        raise RefusedFileError(
            f'{path} is not loaded, since it holds more than weights and could run '
            f'code: {reason}'
        ) from error
    except PermissionError as error:
        raise UnreadableFileError(f'{path} cannot be read: no permission.') from error
    # Damaged files raise errors of any kind.
    except Exception as error:
        reason = _first(str(error) or type(error).__name__)
        if isinstance(error, KeyError):  # with nothing but a number
            reason = f'unknown opcode {reason}'
        raise UserError(
            f'{path} is not a PyTorch checkpoint, or is damaged: {reason}'
        ) from error
    return content


def _load_trusted(file: Path, location) -> object:
    warn(f'{file} is trusted by {TRUST_VARIABLE}: code in it runs.')
    return torch.load(file, location, weights_only=False)


def _check_archive(file: Path) -> None:
    """Raise for an archive that unpacks to far more than its size."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > MAX_INFLATION * file.stat().st_size:
        raise ValueError(
            f'its {file.stat().st_size:,} bytes unpack to {unpacked:,} bytes'
        )


def _check_names(file: Path, path: str) -> None:
    """Raise for a file that could fill the memory by a number."""
    for name in _names(file):
        if name in _FILLS_MEMORY:
            raise RefusedFileError(
                f'{path} is not loaded, since it could take any amount of memory: it '
                f'names {name}.'
            )


def _names(file: Path) -> Iterator[str]:
    """What a file names."""
    with file.open('rb') as data:
        pickles = [data] * 5  # number, version, system, content, storages
        if data.read(4) == b'PK\x03\x04':  # as PyTorch tells its new format
            archive = torch._C.PyTorchFileReader(str(file))
            pickles = [BytesIO(archive.get_record('data.pkl'))]
        data.seek(0)
        for each in pickles:
            with suppress(ValueError):  # damaged there, where PyTorch stops, too
                for operation, name, _ in pickletools.genops(each):
                    if operation.name == 'GLOBAL':
                        yield name.replace(' ', '.')


def _check_tensors(value: object, limit: int) -> None:
    """Raise for tensors that claim more values than a file of some bytes holds.

    A copy of one could exceed the memory.
    """
    pending, seen, storages = [value], set(), {}
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            pending += each.values()
        elif isinstance(each, (list, tuple)):
            pending += each
        elif isinstance(each, Tensor) and each.layout == torch.strided:
            if each.is_meta:
                continue
            size, storage = each.numel() * each.element_size(), each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if size > max(storage.nbytes(), 1 << 20):
                raise ValueError(
                    f'a tensor of shape {tuple(each.shape)} has fewer values than that'
                )
    if sum(storages.values()) > MAX_INFLATION * limit:
        raise ValueError(f'its tensors claim {sum(storages.values()):,} bytes')


def _reason(error: UnpicklingError) -> str:
    """What is wrong, without PyTorch's long advice to programmers around it."""
    message = str(error.__context__ or error)
    return f'{re.sub(" was not an allowed global by default", "", _first(message))}.'


def _first(message: str) -> str:
    """The first sentence of a message."""
    line = (message.strip().splitlines() or ['unknown'])[0]
    return re.split(r'\.(?:\s|$)', line)[0]


def write_weights(
    state: dict[str, Tensor],
    path: str | Path,
    format: str | None,
    extras: dict | None = None,
) -> None:
    """Write a checkpoint file as the project of a format expects it.

    Args:
        state: Parameters and buffers by name.
        path: The file. Its folder is created if need be.
        format: A key of :data:`~mmmixmim.checkpoint.FORMATS`. None writes the bare
            state dict, without ``extras``.
        extras: What else to write, as ``meta``. Defaults to None: nothing.

    Raises:
        UserError: If there is something else than a file at the path.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        what = 'a folder' if path.is_dir() else 'no file'
        raise UserError(f'{path} is {what}: name the file to write.')
    # Reordered weights would otherwise drag the storage they came from along.
    weights = OrderedDict(
        (name, value.contiguous().clone()) for name, value in state.items()
    )
    weights._metadata = getattr(state, '_metadata', {})
    content = weights
    if format is not None:
        key, _ = FORMATS[format].file_key('backbone')
        content = {key: weights} | (extras or {})
    with replacing(path, given=True) as part, part.open('wb') as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # in the wake of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
