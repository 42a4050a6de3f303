"""Read and write checkpoint files without running code in them."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.fileio import get_local_path
from torch import Tensor
from torch.hub import download_url_to_file, get_dir
from torch.serialization import safe_globals

from mmmixmim.validation import MissingFileError, UserError

from .formats import FILE_KEYS, FORMATS


class _Inert:
    """Stands for an object next to the weights that is not needed."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


# Logs and options that OpenMMLab's and the authors' trainings save next to the weights.
# By these names PyTorch makes inert objects, never the real ones.
_INERT_TYPES = (
    'argparse.Namespace',
    'builtins.getattr',
    'datetime.datetime',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray._reconstruct',
    'numpy._core.multiarray.scalar',
    'numpy.dtype',
    'numpy.ndarray',
    'pathlib.PosixPath',
    'pathlib.WindowsPath',
    'pathlib._local.PosixPath',
    'pathlib._local.WindowsPath',
)


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
        UserError: If it is not a checkpoint, or holds objects that could run code.
    """
    path = str(path)
    if path.startswith(('http://', 'https://')):
        file = _download(path)
        try:
            return _read_file(file, path)
        except ValueError:
            file.unlink()  # else it would stay in the cache
            raise
    if '://' in path:
        with get_local_path(path) as file:
            return _read_file(Path(file), path)
    return _read_file(Path(path).expanduser(), path)


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


def _download(url: str) -> Path:
    # Addresses of different files may end in the same name, or in none.
    digest = hashlib.sha256(url.encode()).hexdigest()[:12]
    name = url.split('?')[0].rstrip('/').rsplit('/', 1)[-1]
    file = Path(get_dir(), 'checkpoints', f'{digest}-{name}')
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            download_url_to_file(url, str(file))
        except OSError as error:
            raise MissingFileError(f'{url} cannot be fetched: {error}') from error
    return file


def _read_file(file: Path, path: str) -> tuple[dict[str, Tensor], dict]:
    if not file.is_file():
        raise MissingFileError(f'There is no checkpoint file {path!r}.')
    try:
        with safe_globals([(_Inert, name) for name in _INERT_TYPES]):
            content = torch.load(file, map_location='cpu', weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f'{path} is not loaded, since it holds more than weights and could run '
            f'code, or is damaged: {_reason(error)}'
        ) from error
    except (EOFError, RuntimeError) as error:
        raise UserError(f'{path} is not a PyTorch checkpoint: {error}') from error
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


def _reason(error: UnpicklingError) -> str:
    """The line of PyTorch's long message that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if 'WeightsUnpickler' in line or 'GLOBAL' in line]
    return (telling or lines)[0]


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
        UserError: If the path is a folder.
    """
    if Path(path).is_dir():
        raise UserError(f'{path} is a folder: name the file to write.')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    # Reordered weights would otherwise drag the storage they came from along.
    weights = OrderedDict(
        (name, value.contiguous().clone()) for name, value in state.items()
    )
    weights._metadata = getattr(state, '_metadata', {})
    if format is None:
        torch.save(weights, path)
        return
    key, _ = FORMATS[format].file_key('backbone')
    torch.save({key: weights} | (extras or {}), path)
