"""The folder of a run, and the machine that it runs on."""

import inspect
import json
import math
import multiprocessing
import os
import shutil
import sys
from fractions import Fraction
from subprocess import PIPE, Popen

import numpy as np
import pytest
import torch

import mmmixmim
from mmmixmim.checkpoint.resumable import EARLIER, NOTE, PARTIAL, start_afresh
from mmmixmim.cli import machine
from mmmixmim.cli.doctor import run_checks
from mmmixmim.cli.run import Run
from mmmixmim.cli.settings import Choices
from mmmixmim.cli.training import train
from mmmixmim.cli.weights import known_settings
from mmmixmim.datasets.labelled import Labelled
from mmmixmim.engine.hooks.safe_saving import name_last
from mmmixmim.validation import MissingFileError, UserError

from .conftest import mixmim


def make_run(folder, command='pretrain', named=None):
    folder.mkdir()
    content = dict(command=command, arguments={})
    (folder / 'run.json').write_text(json.dumps(content))
    if named:
        (folder / 'epoch_5.pth').touch()
        (folder / 'last_checkpoint').write_text(str(named / 'epoch_5.pth'))
    return Run.load(folder)


def test_a_moved_run_keeps_its_checkpoint(tmp_path):
    """Also if another run has begun where it was."""
    first = make_run(tmp_path / 'first', named=tmp_path / 'first')
    moved = make_run(tmp_path / 'moved', named=tmp_path / 'first')
    assert first.checkpoint == tmp_path / 'first' / 'epoch_5.pth'
    assert moved.checkpoint == tmp_path / 'moved' / 'epoch_5.pth'


def test_a_run_whose_checkpoints_are_on_another_disk_names_those(tmp_path):
    """Not an older one of the same name in the folder of the run."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    (disk / 'epoch_5.pth').touch()
    assert make_run(tmp_path / 'run', named=disk).checkpoint == disk / 'epoch_5.pth'


def test_a_run_without_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(MissingFileError, match='giving its command again'):
        _ = make_run(tmp_path / 'begun').checkpoint
    with pytest.raises(MissingFileError, match='is a probe, .* run that it measured'):
        _ = make_run(tmp_path / 'probe', 'probe').checkpoint


@pytest.mark.parametrize('named', [b'\xff\xfe\0', b'x' * 5000, b'a/' * 3000])
def test_a_run_that_names_no_path_has_no_checkpoint(tmp_path, named):
    run = make_run(tmp_path / 'run')
    (run.folder / 'last_checkpoint').write_bytes(named)
    with pytest.raises(MissingFileError, match='giving its command again'):
        _ = run.checkpoint


@pytest.mark.parametrize('changes', [dict(settings=[]), dict(arguments='x'), 'deep'])
def test_a_run_of_other_types_is_none(tmp_path, changes):
    folder = make_run(tmp_path / 'run').folder
    text = 200_000 * '['
    if changes != 'deep':
        text = json.dumps(dict(command='pretrain', arguments={}) | changes)
    (folder / 'run.json').write_text(text)
    with pytest.raises(MissingFileError, match='no usable run.json'):
        Run.load(folder)


def test_a_run_without_settings_is_known_by_its_weights(pretrained, tmp_path):
    run = make_run(tmp_path / 'run', named=tmp_path / 'run')
    weights = next(pretrained[0].glob('epoch_*.pth'))
    shutil.copy(weights, run.folder / 'epoch_5.pth')
    assert known_settings(run.folder) == known_settings(pretrained[0])


def test_a_link_in_the_folder_of_a_run_leads_to_nothing_that_is_written(tmp_path):
    run, mine = make_run(tmp_path / 'run'), tmp_path / 'mine'
    mine.write_text('keep')
    shutil.copy(mine, run.folder / 'epoch_5.pth')
    labelled = Labelled([tmp_path / 'a.jpg'], [0], ['a'], ['train'])
    partial = f'{EARLIER}{PARTIAL}'
    for name in ('run.json', 'config.py', 'train.txt', partial, NOTE + PARTIAL):
        (run.folder / name).unlink(missing_ok=True)
        (run.folder / name).symlink_to(mine)
    run.begin('', Choices(), {})
    labelled.write(run.folder)
    start_afresh(run.folder)
    name_last(run.folder, 'epoch_5.pth')
    assert mine.read_text() == 'keep'
    assert not any(path.is_symlink() for path in run.folder.iterdir())
    assert (run.folder / NOTE).read_text() == 'epoch_5.pth'


@pytest.mark.parametrize('command', ['pretrain', 'finetune', 'probe'])
def test_a_run_gets_the_arguments_of_its_command_and_nothing_else(command, monkeypatch):
    def stop(name, **arguments):
        raise UserError(f'{name} {" ".join(arguments)}')

    monkeypatch.setattr(Run, 'open', stop)
    function = getattr(mmmixmim, command)
    expected = ' '.join([command, *inspect.signature(function).parameters])
    with pytest.raises(UserError, match=f'^{expected}$'):
        function('data')


@pytest.mark.parametrize('share', [np.float32(0.5), Fraction(1, 2)])
def test_numbers_of_other_types_stay_numbers(share, photos, tmp_path, capsys):
    mmmixmim.finetune(photos, tmp_path / 'run', val_share=share, dry_run=True)
    assert '36 images to train on and 36 to validate' in capsys.readouterr().out


def test_whole_numbers_of_numpy_are_stored_as_ints(photos, tmp_path):
    given = dict(batch_size=np.int64(4), seed=np.int64(3))
    run = Run.open('pretrain', data=photos, out=tmp_path / 'run', **given)
    assert run.arguments['batch_size'] == 4 and run.arguments['seed'] == 3
    assert {type(run.arguments[name]) for name in given} == {int}


@pytest.mark.parametrize(
    'given, said',
    [
        (dict(lr='x'), "--lr must be a number of at least 0, got 'x'"),
        (dict(lr=True), '--lr must be a number of at least 0, got True'),
        (dict(lr=float('nan')), '--lr must be a number of at least 0, got nan'),
        (dict(model=['micro']), r"--model must be one of .*, got \['micro'\]"),
        (dict(precision=16), '--precision must be one of .*, got 16'),
        (dict(no_data=True), 'no_data must be a number, .* got True'),
        (dict(out=3), '--out must be a path, got 3'),
        (dict(start=3), '--from must be a path, got 3'),
        (dict(masks=np.eye(9)), '--masks must be a path, got array'),
    ],
)
def test_arguments_of_wrong_types(given, said, photos, tmp_path):
    with pytest.raises(UserError, match=said) as error:
        mmmixmim.pretrain(photos, **dict(out=tmp_path / 'run', dry_run=True) | given)
    assert '\n' not in str(error.value) and not (tmp_path / 'run').exists()


def test_a_command_that_ended_before_its_run_began_can_be_repeated(tmp_path):
    """Its disk was full, or it was killed."""
    run = Run.open('pretrain', data='images', out=tmp_path)
    for name in ('.scan.json.1.part', 'scan.json', 'run.json'):
        (tmp_path / name).touch() if 'scan' in name else (tmp_path / name).mkdir()
        if name != 'run.json':
            Run.open('pretrain', data='images', out=tmp_path)
    with pytest.raises(OSError, match='run.json'):
        run.begin('epochs = 1', {}, {})
    (tmp_path / 'run.json').rmdir()
    assert run.config.read_text() == 'epochs = 1'
    assert not Run.open('pretrain', data='images', out=tmp_path).exists


def test_a_share_that_is_no_number(photos, tmp_path):
    with pytest.raises(UserError, match="above 0 and below 1, got '0.5'"):
        mmmixmim.finetune(photos, tmp_path / 'run', val_share='0.5')


def test_errors_name_the_config_of_the_run(photos, tmp_path):
    """Options of training are entries of it."""
    out = tmp_path / 'run'
    options = [photos, '--out', out, '--epochs', 1]
    line = error_line_of_training('pretrain', *options, '--lr', 1e30)
    assert 'All weights are still finite' in line
    assert f'options are entries of {out / "config.py"}: change them there' in line
    assert line.endswith('Then give the same command again.') and '--resume' not in line


def error_line_of_training(*arguments):
    code, out, err = mixmim(*arguments)
    assert code == 1, out + err
    (line,) = [each for each in err.splitlines() if each.startswith('error: ')]
    return line


def test_a_finetuning_goes_on_without_the_weights_that_it_began_with(
    pretrained, photos, tmp_path
):
    start, out = tmp_path / 'start', tmp_path / 'tuned'
    shutil.copytree(pretrained[0], start)
    options = ['finetune', photos, '--from', start, '--out', out, '--epochs', 1]
    code, _, err = mixmim(*options)
    assert code == 0, err
    for path in start.glob('*.pth'):
        path.unlink()
    run = Run.load(out)
    run.finished = False
    run.save()
    text = run.config.read_text()
    run.config.write_text(text.replace('max_epochs=1', 'max_epochs=2'))
    code, printed, err = mixmim(*options)
    assert code == 0, err
    assert 'Going on after epoch_1.pth' in printed


V1, V2 = '4:memory:{0}\n1:cpu,cpuacct:{0}\n0::/\n', '0::{0}\n'
MEMORY = {
    V1: ('memory/{}/memory.limit_in_bytes', 'memory/{}/memory.usage_in_bytes'),
    V2: ('{}/memory.max', '{}/memory.current'),
}


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))


@pytest.mark.parametrize('group', ['/', '/job_5/step_0', '/of/the/host'])
@pytest.mark.parametrize('groups', [V1, V2], ids=['v1', 'v2'])
def test_limits_of_containers_and_jobs(tmp_path, groups, group):
    """A job may have several; a container sees its own group as the only one."""
    limit, used = MEMORY[groups]
    unlimited = 'max' if groups == V2 else 9223372036854771712
    for path, most in (('job_5/step_0', unlimited), ('job_5', 6 << 30), ('.', 8 << 30)):
        write(tmp_path, {limit.format(path): most, used.format(path): 2 << 30})
    free = machine.group_memory(tmp_path, groups.format(group))
    assert free == (4 if 'job_5' in group else 6) << 30
    assert machine.group_memory(tmp_path / 'none', groups.format(group)) == math.inf
    assert machine.group_memory(tmp_path, '\nnone\n') == math.inf


@pytest.mark.parametrize(
    'groups, line',
    [(V1, 'inactive_file 0\ntotal_inactive_file'), (V2, 'anon 9\ninactive_file')],
    ids=['v1', 'v2'],
)
def test_files_in_memory_leave_it_free(tmp_path, groups, line):
    limit, used = MEMORY[groups]
    write(tmp_path, {limit.format('a'): 8 << 30, used.format('a'): 7 << 30})
    stat = tmp_path / limit.format('a')
    stat.with_name('memory.stat').write_text(f'{line} {6 << 30}\nactive_file 0\n')
    assert machine.group_memory(tmp_path, groups.format('/a')) == 7 << 30


def test_quotas_of_containers_and_jobs_limit_the_cores(tmp_path):
    for text, expected in (
        ('150000 100000', 2),
        ('max 100000', math.inf),
        ('', math.inf),
    ):
        write(tmp_path, {'cpu.max': text})
        assert machine.group_cores(tmp_path, V2.format('/a')) == expected
    for quota, expected in ((50000, 1), (-1, math.inf)):
        files = {'cpu/cpu.cfs_quota_us': quota, 'cpu/cpu.cfs_period_us': 100000}
        write(tmp_path / 'v1', files)
        assert machine.group_cores(tmp_path / 'v1', V1.format('/a')) == expected


@pytest.mark.skipif(not hasattr(os, 'sched_getaffinity'), reason='Linux')
def test_the_limits_of_this_process_count(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, '_GROUPS', tmp_path)
    monkeypatch.setattr(machine, '_own_groups', lambda: V2.format('/a'))
    files = {'cpu.max': '50000 100000', 'memory.max': 9, 'memory.current': 2}
    write(tmp_path, files)
    assert (machine._cores(), machine._free_memory()) == (1, 7)


def test_other_processes_slow_threads_down(tmp_path, monkeypatch, capsys):
    real = machine.Path
    monkeypatch.setattr(machine, 'Path', lambda name: real(tmp_path, real(name).name))
    monkeypatch.setattr(os, 'cpu_count', lambda: 4)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 4)
    cpu, gpu = (machine.Machine(name, '', 1, cores=4) for name in ('cpu', 'cuda'))
    for text, busy, free in (
        ('1.20 0.10 0.10 2/90 7', 1, 3),
        ('9.00 0.10 0.10 12/90 7', 4, 1),
        ('3.20 0.10 0.10 1/90 7', 0, 0),  # a run that has ended
        ('0.30 0.10 0.10 4/90 7', 0, 0),  # a moment
        ('', 0, 0),
    ):
        (tmp_path / 'loadavg').write_text(text)
        assert machine.busy_note(gpu) is None
        said = ': '.join(machine.busy_note(cpu) or ())
        assert bool(said) == bool(busy)
        if said:
            assert f'use {busy} of 4 cores, so 4 threads wait' in said
            assert f': export OMP_NUM_THREADS={free}, or wait until' in said
    (tmp_path / 'loadavg').write_text('9.00 0.10 0.10 12/90 7')
    assert 'other processes use 4' in ''.join(each.what for each in run_checks(cpu))
    with pytest.raises(FileNotFoundError):  # there is no config
        train(Run(tmp_path, 'pretrain', {}))
    assert 'Careful: other processes use 4 of 4 cores' in capsys.readouterr().out
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    assert machine.busy_note(cpu) is None


def test_shards_lie_beside_the_run(tmp_path):
    (tmp_path / '000000.tar').touch()
    _, _, err = mixmim('pretrain', tmp_path, '--out', tmp_path / 'run')
    assert '000000.tar cannot be read: it is empty' in err  # not --out


@pytest.mark.parametrize('out', ['.', 'run', 'sea/run'])
def test_a_run_stays_out_of_its_images(photos, out):
    for command in ('pretrain', 'finetune', 'probe'):
        code, _, err = mixmim(command, photos, '--out', photos / out)
        assert code == 1 and 'would be taken for images' in err
    assert not (photos / 'run').exists()


def test_runs_among_the_images_are_refused(photos, pretrained, tmp_path):
    shutil.copytree(photos, tmp_path / 'images')
    shutil.copytree(pretrained[0], tmp_path / 'images' / 'first')
    code, _, err = mixmim('pretrain', tmp_path / 'images', '--out', tmp_path / 'run')
    assert code == 1 and "images/first' is the folder of a run" in err


def test_one_process_at_a_time_prepares_or_trains_a_run(photos, tmp_path):
    out = tmp_path / 'run'
    code = (
        'from pathlib import Path; from mmmixmim.cli.run import Run\n'
        f'with Run(Path({str(out)!r}), "pretrain", {{}}).locked():\n'
        '    print("locked", flush=True); input()'
    )
    command = [sys.executable, '-c', code]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert any('locked' in line for line in iter(other.stdout.readline, ''))
        for name in ('pretrain', 'finetune', 'probe'):
            _, _, err = mixmim(name, photos, '--out', out)
            assert 'Another process uses' in err
            assert [path.name for path in out.iterdir()] == ['.lock']
        other.communicate('\n')
    with Run(out, 'pretrain', {}).locked():
        pass


@pytest.mark.parametrize('command', ['pretrain', 'finetune', 'probe'])
def test_a_process_has_one_run_at_a_time(command, photos, tmp_path):
    """In this folder or another; threads share what MMEngine and Python data keep."""
    with Run(tmp_path / 'first', 'pretrain', {}).locked():
        for name in ('first', 'second'):
            with pytest.raises(UserError, match='another run of this process has not'):
                getattr(mmmixmim, command)(photos, out=tmp_path / name)
        assert not (tmp_path / 'second').exists()
    with Run(tmp_path / 'second', 'pretrain', {}).locked():
        pass


def test_a_forked_process_may_have_a_run_of_its_own(tmp_path):
    """It inherits no lock, so the advice to start another process helps."""

    def child():
        with Run(tmp_path / 'second', 'pretrain', {}).locked():
            pass

    with Run(tmp_path / 'first', 'pretrain', {}).locked():
        process = multiprocessing.get_context('fork').Process(target=child)
        process.start()
        process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize('command', ['pretrain', 'finetune', 'probe'])
@pytest.mark.parametrize('exists', [False, True])
def test_a_start_that_fails_leaves_no_folder(exists, command, tmp_path):
    out = tmp_path / 'runs' / 'first'
    if exists:
        out.mkdir(parents=True)
    code, _, _ = mixmim(command, tmp_path / 'missing', '--out', out)
    assert code == 1 and (tmp_path / 'runs').exists() == out.exists() == exists
    assert not exists or not any(out.iterdir())


def test_a_run_that_began_meanwhile_is_left_alone(tmp_path):
    mine = Run.open('pretrain', data='data', out=tmp_path)
    Run.open('pretrain', data='other', out=tmp_path).save()
    with pytest.raises(UserError, match='has just begun a run'), mine.locked():
        pass
    mine.finished = True  # a probe, which is repeated, and has no settings
    with mine.locked():
        pass


def test_a_shard_above_the_images_is_no_data_of_shards(photos, tmp_path):
    images = tmp_path / 'images'
    shutil.copytree(photos, images)
    (images / 'old.tar').touch()
    _, _, err = mixmim('pretrain', images, '--out', images / 'run')
    assert 'would be taken for images' in err
