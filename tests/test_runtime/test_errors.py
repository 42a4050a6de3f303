"""Users' mistakes print one line; bugs keep their traceback."""

import errno
import os

import pytest
import torch
from mmengine.registry import Registry

from mmmixmim.registry import MODELS, TRANSFORMS
from mmmixmim.runtime import naming_full_memory, one_line_errors
from mmmixmim.validation import (
    MissingDependencyError,
    MissingFileError,
    UnreadableFileError,
    UserError,
)


def line_of(function, *args, **kwargs):
    with pytest.raises(SystemExit) as error:
        with one_line_errors():
            function(*args, **kwargs)
    (line,) = str(error.value.code).splitlines()
    assert line.startswith('error: ')
    assert error.value.__cause__ is not None
    return line


def throw(error):
    raise error


@pytest.mark.parametrize(
    'kind',
    [
        UserError,
        MissingDependencyError,
        MissingFileError,
        UnreadableFileError,
        FileNotFoundError,
    ],
)
def test_user_errors_are_one_line(kind):
    assert line_of(throw, kind('a: b')) == 'error: a: b'


def test_missing_files_are_named(tmp_path):
    assert f"'{tmp_path / 'a.txt'}'" in line_of(open, tmp_path / 'a.txt')


def test_decorator_is_the_same():
    @one_line_errors()
    def main():
        raise UserError('wrong')

    for _ in range(2):
        with pytest.raises(SystemExit, match='^error: wrong$'):
            main()


@pytest.mark.parametrize(
    'number', [errno.ENOSPC, errno.EACCES, errno.EISDIR, errno.ELOOP]
)
def test_full_disks_and_missing_permissions_are_one_line(number):
    line = line_of(throw, OSError(number, os.strerror(number), '/a/b.json'))
    assert f'/a/b.json cannot be read or written: {os.strerror(number)}. ' in line
    assert 'resumes from the last checkpoint' in line


@pytest.mark.parametrize(
    'bug',
    [
        ValueError('a'),
        TypeError('unsupported operand'),
        KeyError('name'),
        KeyError(),
        AssertionError(),
        RuntimeError("unexpected keyword argument 'a'"),
        OSError('failed to load image: a'),
    ],
    ids=repr,
)
def test_bugs_keep_their_traceback(bug):
    with pytest.raises(type(bug)) as error:
        with one_line_errors():
            raise bug
    assert error.value is bug


def test_image_that_mmcv_cannot_read_is_named(tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    load = TRANSFORMS.build(dict(type='LoadImageFromFile'))
    line = line_of(load, dict(img_path=str(tmp_path / 'broken.jpg')))
    assert f'cannot read the image {tmp_path / "broken.jpg"}. ' in line
    assert '--resume' in line


def test_unknown_type_is_named():
    line = line_of(MODELS.build, dict(type='NoSuchModel'))
    assert 'NoSuchModel' in line and 'registry' in line


def test_unknown_argument_is_named():
    registry = Registry('some')

    @registry.register_module()
    class Some:
        def __init__(self, good=1):
            pass

    line = line_of(registry.build, dict(type='Some', bad=1))
    assert "'bad'" in line and 'Check the entry bad in the config' in line


class Broken(torch.utils.data.Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        if self.error is None:
            return open('/nowhere/a.jpg')
        raise self.error


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(
    'error, expected',
    [
        (None, "[Errno 2] No such file or directory: '/nowhere/a.jpg'"),
        (UserError('bad value: 3'), 'bad value: 3'),
        (UnreadableFileError('a.jpg: cut off'), 'a.jpg: cut off'),
    ],
    ids=['missing', 'value', 'unreadable'],
)
def test_errors_of_dataloader_workers_are_one_line(workers, error, expected):
    loader = torch.utils.data.DataLoader(Broken(error), num_workers=workers)
    assert line_of(lambda: next(iter(loader))) == f'error: {expected}'


@pytest.mark.parametrize(
    'error',
    [
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB'),
        RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas'),
        RuntimeError('CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED'),
    ],
)
def test_a_gpu_without_memory_is_named(error):
    line = line_of(naming_full_memory('choose a smaller --num')(throw), error)
    assert line.endswith('end what else uses it, or choose a smaller --num.')
    assert line_of(naming_full_memory()(throw), error).endswith('uses it.')
    with pytest.raises(RuntimeError, match='shapes'):
        naming_full_memory()(throw)(RuntimeError('shapes do not match'))
