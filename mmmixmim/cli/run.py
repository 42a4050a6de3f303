"""The folder of a run: opened, continued or refused."""

from __future__ import annotations

import json
import os
import reprlib
import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path

from mmmixmim.checkpoint.resumable import noted
from mmmixmim.datasets.image_files import find_images
from mmmixmim.datasets.no_data import check_no_data
from mmmixmim.runtime import replace_file
from mmmixmim.runtime.files import LOCK, PART, created, existing, locked
from mmmixmim.text import printable
from mmmixmim.validation import MissingFileError, UserError

from .python_data import STORED_FOLDER, describe
from .settings import Choices, check_given

# Arguments of the commands that are chosen unless they are given.
_CHOSEN = (
    'model',
    'image_size',
    'batch_size',
    'epochs',
    'lr',
    'precision',
    'workers',
)
# MMEngine's scope, loggers and signal handlers belong to the process.
_RUNNING: dict[int, threading.Lock] = {}  # by process: a forked one has no run
# What a command that was interrupted before its run began has written, scan.json first.
_PREPARED = {
    'scan.json',
    'statistics.json',
    'images.txt',
    'train.txt',
    'val.txt',
    'held_out',
    STORED_FOLDER,
    'config.py',
}


@dataclass
class Run:
    """A run and its folder.

    Attributes:
        folder: Where all files of the run go.
        command: 'pretrain', 'finetune' or 'probe'.
        arguments: What the user asked for.
        settings: Value of each setting, by name.
        data: What the scan found.
        finished: Whether the run has come to its end.
    """

    folder: Path
    command: str
    arguments: dict
    settings: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    finished: bool = False

    @property
    def config(self) -> Path:
        """The config of the run."""
        return self.folder / 'config.py'

    @property
    def checkpoint(self) -> Path:
        """The latest checkpoint.

        Raises:
            MissingFileError: If there is none yet.
        """
        path = Path(noted(self.folder))
        if path.is_file():
            return path
        if self.command == 'probe':
            raise MissingFileError(
                f'{str(self.folder)!r} is a probe, which trains no encoder and has no '
                'checkpoint: name the run that it measured.'
            )
        raise MissingFileError(
            f'{str(self.folder)!r} has no checkpoint yet: let the run go on by '
            'giving its command again.'
        )

    @property
    def invocation(self) -> str:
        """The command that starts the run and goes on with it."""
        data, names = self.arguments['data'], dict(start='from')
        options = {name: x for name, x in self.arguments.items() if x is not None}
        del options['data']
        if not Path(data).is_absolute() and '://' not in data:
            options = dict(out=str(self.folder)) | options
            words = ', '.join(f'{name}={value!r}' for name, value in options.items())
            return f'mmmixmim.{self.command}(data, {words})  # data: {data}'
        words = ['python', '-m', 'mmmixmim', self.command, data]
        words += ['--out', str(self.folder)]
        for name, value in options.items():
            words.append(f'--{names.get(name, name).replace("_", "-")}={value}')
        return shlex.join(words)

    @property
    def given(self) -> dict:
        """The settings that the user gave; None stands for "choose"."""
        return {name: x for name, x in self.arguments.items() if name in _CHOSEN}

    @property
    def exists(self) -> bool:
        """Whether the folder holds this run already."""
        return (self.folder / 'run.json').is_file()

    def save(self) -> None:
        """Write ``run.json``."""
        content = {
            name: getattr(self, name)
            for name in ('command', 'arguments', 'settings', 'data', 'finished')
        }
        text = json.dumps(content, indent=2, default=str) + '\n'
        replace_file(self.folder / 'run.json', text)

    def begin(self, config: str, chosen: Choices, data: dict) -> None:
        """Write the config, and ``run.json`` last: then the run exists.

        Args:
            config: Text of the config.
            chosen: All settings.
            data: What the scan found.
        """
        replace_file(self.config, config)
        self.settings = {name: choice.value for name, choice in chosen.items()}
        self.data = data
        self.save()

    def is_done(self, dry_run: bool) -> bool:
        """Say if there is nothing to do: the run has ended, or would only go on."""
        if self.finished:
            print(f'{self.folder} has come to its end already.')
        elif self.exists and dry_run:
            print(f'{self.folder} holds this run, which would go on.')
        return self.finished or self.exists and dry_run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from preparing or training a run in the folder.

        Raises:
            UserError: If another one does, or has begun a run since this one was
                opened; or if this process prepares or trains another run.
        """
        with (
            _only_run(self.folder),
            created(self.folder),
            locked(self.folder, '--out'),
        ):
            if self.exists and not (self.settings or self.finished):
                raise UserError(
                    f'Another process has just begun a run in {str(self.folder)!r}: '
                    'choose another --out, or repeat its command to go on with it.'
                )
            try:
                yield
            finally:
                with suppress(OSError):
                    if os.listdir(self.folder) == [LOCK]:  # nothing was begun
                        (self.folder / LOCK).unlink()

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the run in a folder.

        Raises:
            MissingFileError: If it holds none.
        """
        try:
            run = cls(folder, **json.loads((folder / 'run.json').read_text()))
            for each in (run.arguments, run.settings, run.data):
                if not isinstance(each, dict):
                    raise TypeError(f'{each!r} is no dict')
            return run
        except (OSError, ValueError, TypeError, RecursionError) as error:
            what = (
                'is not the folder of a run of `mixmim`: it has no usable run.json '
                '(tools/train.py writes none).'
                if folder.exists()
                else 'does not exist: check the path of the run.'
            )
            raise MissingFileError(f'{str(folder)!r} {what}') from error

    @classmethod
    def open(
        cls,
        command: str,
        *,
        data: object,
        out: str | Path,
        dry_run: bool = False,
        **arguments,
    ) -> Run:
        """Open a new folder, or that of the same run to go on with it.

        Args:
            command: Name of the command.
            data: What it works on.
            out: The folder.
            dry_run: Ignored when runs are compared.
            **arguments: All other arguments of the command.

        Raises:
            UserError: If the folder has something else, or a run with other arguments;
                or if a setting is wrong whatever the data are.
        """
        folder = as_path('--out', out)
        arguments = dict(data=describe(data)) | arguments
        for option, name in (('--from', 'start'), ('--masks', 'masks')):
            if arguments.get(name) is not None:
                as_path(option, arguments[name])
        if arguments.get('no_data') is not None:  # '0', 0 and 0.0 are one
            arguments['no_data'] = str(check_no_data(arguments['no_data']))
        if arguments.get('masks') is not None:
            arguments['masks'] = describe(arguments['masks'])
        arguments = json.loads(json.dumps(arguments, default=_plain))
        check_given(**arguments)
        _check_writable(folder)
        if (folder / 'run.json').is_file():
            run = cls.load(folder)
            difference = _difference(run, command, arguments)
            if difference:
                text = f'--out {str(folder)!r} holds another run: {difference}. '
                if run.finished:
                    text += 'It has come to its end: choose another --out.'
                else:
                    text += f'Choose another --out, or go on with it: {run.invocation}'
                raise UserError(text)
            return run
        _check_outside(folder, arguments['data'])
        found = (path for path in folder.glob('*') if path.suffix != PART)
        others = {path.name for path in found} - {STORED_FOLDER, LOCK}
        if 'scan.json' in others:
            others -= _PREPARED
        if others:
            raise UserError(
                f'--out {str(folder)!r} is not empty (it has {min(others)}), and it '
                'holds no run of this command: choose another --out.'
            )
        return cls(folder, command, arguments)


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    lock = _RUNNING.setdefault(os.getpid(), threading.Lock())
    if not lock.acquire(blocking=False):
        raise UserError(
            f'--out {str(folder)!r}: another run of this process has not ended. Wait '
            'for its end, or start this one in a process of its own.'
        )
    try:
        yield
    finally:
        lock.release()


def _plain(value: object) -> float | str:
    """What JSON keeps of a value: a number of NumPy, or a fraction, stays a number."""
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else str(value)


def as_path(option: str, value: str | Path) -> Path:
    """The path that an option names.

    Raises:
        UserError: If it is something else.
    """
    if not isinstance(value, (str, os.PathLike)):
        got = printable(reprlib.repr(value))
        raise UserError(f'{option} must be a path, got {got}.')
    return Path(value).expanduser()


def _check_outside(folder: Path, data: str) -> None:
    """Raise if the pictures of a new run would be found among its images."""
    if not os.path.isdir(data):
        return
    images, out = Path(data).resolve(), folder.resolve()
    # No picture is taken for a shard.
    if images in (out, *out.parents) and _has_images(images):
        raise UserError(
            f'--out {str(folder)!r} lies in {data!r}, where the pictures of the run '
            'would be taken for images: choose a folder elsewhere.'
        )


def _has_images(folder: Path) -> bool:
    try:
        return bool(find_images(folder))
    except MissingFileError:
        return False


def _check_writable(folder: Path) -> None:
    there = existing(folder)
    if not there.is_dir():
        raise UserError(
            f'--out {str(folder)!r} cannot be a folder: {str(there)!r} is a file. '
            'Choose another --out.'
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f'--out {str(folder)!r} cannot be written: you have no permission for '
            f'{str(there)!r}. Choose another --out.'
        )


def _difference(run: Run, command: str, arguments: dict) -> str:
    """Say what is another run's, '' if nothing is."""
    if run.command != command:
        return f'it is a {run.command}, not a {command}'
    for name in (*arguments, *run.arguments):
        there, here = (each.get(name) for each in (run.arguments, arguments))
        if there != here:
            there, here = (
                'not given' if each is None else repr(each) for each in (there, here)
            )
            option = 'from' if name == 'start' else name
            return f'{option} is {there} there, but {here} here'
    return ''
