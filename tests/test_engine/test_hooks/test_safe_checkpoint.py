import errno
import os
import resource
import shutil
import stat
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine._strategy.deepspeed import (
    DeepSpeedOptimWrapper,
    MMDeepSpeedEngineWrapper,
)
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmmixmim.checkpoint.resumable import (
    find_resumable,
    is_complete,
    noted,
    start_afresh,
)
from mmmixmim.engine import SafeCheckpointHook
from mmmixmim.engine.hooks.safe_checkpoint import _drop_empty_scale
from mmmixmim.engine.hooks.safe_saving import SafeSaving, prepare_folder, publish
from mmmixmim.engine.wrappers import accumulated
from mmmixmim.runtime import build_runner
from mmmixmim.validation import UserError

from ..runs import CONFIGS, KillHook, tiny_finetuning, tiny_pretraining, train


class FullDisk(Hook):
    """No file may grow beyond a limit, from the second checkpoint on."""

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner, checkpoint):
        if runner.iter > 2:
            self.hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, self.hard))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.hard, self.hard))


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """Folder of a run that was killed between iterations 6 and 7."""
    folder = tmp_path_factory.mktemp('killed')
    train(tiny_pretraining(folder), (KillHook, 'before_train_iter', 7))
    assert find_resumable(folder) == str(folder / 'iter_6.pth')
    return folder


@pytest.fixture
def interrupted(killed, tmp_path):
    """A copy of the folder, for changes."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_6.pth'))
    return tmp_path


def resume(folder, checkpoint, prepare=lambda cfg: None):
    cfg = tiny_pretraining(folder)
    prepare(cfg)
    cfg.update(resume=True, load_from=str(checkpoint))
    build_runner(cfg).train()


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    runner = build_runner(cfg)
    disk = FullDisk()
    runner.register_hook(disk, 'LOWEST')
    try:
        with pytest.raises(UserError, match=r'iter_4.pth cannot be written: File too'):
            runner.train()
    finally:
        disk.free()
    assert [path.name for path in tmp_path.glob('*.pth*')] == ['iter_2.pth']
    assert find_resumable(tmp_path) == str(tmp_path / 'iter_2.pth')
    resume(tmp_path, tmp_path / 'iter_2.pth')
    assert (tmp_path / 'iter_9.pth').exists()


class Stop(Hook):
    """End the training after three iterations, as EarlyStoppingHook does."""

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 2:
            runner.train_loop.stop_training = True


@pytest.mark.parametrize('kind, last', [('iter', 'iter_3'), ('epoch', 'epoch_1')])
def test_the_end_of_a_run_that_a_hook_ends_is_saved(tmp_path, kind, last):
    cfg = CONFIGS[kind](tmp_path)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.checkpoint.pop('save_best', None)
    runner = build_runner(cfg)
    runner.register_hook(Stop())
    runner.train()
    assert runner.iter == 3
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / f'{last}.pth')
    meta = torch.load(tmp_path / f'{last}.pth', weights_only=False)['meta']
    assert (meta['iter'], meta['epoch']) == (3, 0 if kind == 'iter' else 1)
    assert len(list(tmp_path.glob('*.pth'))) == (2 if kind == 'iter' else 1)


def test_folder_that_cannot_be_written_stops_before_the_training(tmp_path):
    (tmp_path / 'file').touch()
    cfg = tiny_pretraining(tmp_path / 'work')
    cfg.default_hooks.checkpoint.out_dir = str(tmp_path / 'file' / 'folder')
    runner = build_runner(cfg)
    with pytest.raises(UserError, match='folder/work.* cannot be written: Not a dir'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'missing'])
def test_damaged_checkpoint_gives_way_to_the_one_before(interrupted, damage):
    last = interrupted / 'iter_6.pth'
    content = last.read_bytes()
    middle = len(content) // 2
    if damage == 'truncated':
        last.write_bytes(content[:-100])
    elif damage == 'flipped':
        flipped = bytes(255 - each for each in content[middle : middle + 1000])
        last.write_bytes(content[:middle] + flipped + content[middle + 1000 :])
    else:
        last.unlink()
    assert find_resumable(interrupted) == str(interrupted / 'iter_4.pth')
    with pytest.raises(UserError, match='iter_6.pth is damaged, no .*--resume without'):
        resume(interrupted, last)
    (interrupted / 'iter_4.pth').write_text('no checkpoint')
    with pytest.raises(UserError, match='No checkpoint in .* is complete'):
        find_resumable(interrupted)


def test_pipes_and_devices_are_no_checkpoints(tmp_path):
    os.mkfifo(tmp_path / 'latest.pth')
    os.mkfifo(tmp_path / 'last_checkpoint')
    (tmp_path / 'iter_2.pth').symlink_to('/dev/zero')
    with pytest.raises(UserError, match='No checkpoint in .* is complete'):
        find_resumable(tmp_path)
    (tmp_path / 'latest.pth').unlink()
    (tmp_path / 'iter_2.pth').unlink()
    os.mkfifo(tmp_path / 'earlier_checkpoint')
    assert find_resumable(tmp_path) is None


@pytest.mark.parametrize('number', [errno.EINVAL, errno.EIO])
def test_disks_that_flush_no_folders_keep_checkpoints(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', refuse)
    path, partial = tmp_path / 'latest.pth', tmp_path / 'latest.pth.partial'
    partial.write_text('new')
    unsafe = number == errno.EIO
    with pytest.raises(OSError, match='Input') if unsafe else nullcontext():
        publish(partial, path)
    assert path.read_text() == 'new'


def test_checkpoints_are_on_the_disk_before_they_get_their_name(tmp_path, monkeypatch):
    """Else a power cut could leave an empty file in the place of the old one."""
    path, partial = tmp_path / 'latest.pth', tmp_path / 'latest.pth.partial'
    part = partial / 'rank_0' / 'part'  # of a sharded checkpoint
    part.parent.mkdir(parents=True)
    part.write_text('new')
    expected = [(part.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
    flushed = []

    def flush(descriptor):
        flushed.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, 'fsync', flush)
    publish(partial, path)
    assert flushed == expected


def test_weights_that_another_hook_saves_last_are_left_out(interrupted):
    """As of MMEngine's hook for weights, which writes ``last_checkpoint`` too."""
    weights = torch.load(interrupted / 'iter_6.pth', weights_only=True)
    del weights['optimizer']
    torch.save(weights, interrupted / 'weights_6.pth')
    (interrupted / 'last_checkpoint').write_text(str(interrupted / 'weights_6.pth'))
    assert find_resumable(interrupted) == str(interrupted / 'iter_6.pth')
    for path in interrupted.glob('iter_*.pth'):
        path.unlink()
    # The refusal says what it lacks.
    assert find_resumable(interrupted) == str(interrupted / 'weights_6.pth')


def test_damaged_checkpoint_gives_way_also_with_names_of_its_own(interrupted):
    """As of ``filename_tmpl``."""
    for number in (4, 6):
        path = interrupted / f'model_{number}.pth'
        (interrupted / f'iter_{number}.pth').rename(path)
    (interrupted / 'last_checkpoint').write_text(str(path))
    path.write_text('damaged')
    assert find_resumable(interrupted) == str(interrupted / 'model_4.pth')


def test_without_a_note_the_newest_checkpoint_counts(interrupted):
    """By time: 10 is more than 6, and less in the alphabet."""
    (interrupted / 'last_checkpoint').unlink()
    shutil.copy(interrupted / 'iter_6.pth', interrupted / 'iter_10.pth')
    assert find_resumable(interrupted) == str(interrupted / 'iter_10.pth')


def test_a_moved_run_finds_its_own_checkpoints(killed, tmp_path):
    """Also if another run has begun where it was."""
    moved, other = tmp_path / 'moved', tmp_path / 'run'
    for folder in (moved, other):
        shutil.copytree(killed, folder)
        (folder / 'last_checkpoint').write_text(str(other / 'iter_6.pth'))
    assert find_resumable(moved) == str(moved / 'iter_6.pth')
    assert find_resumable(other) == str(other / 'iter_6.pth')
    for damage in (lambda path: path.write_text('damaged'), lambda path: path.unlink()):
        damage(moved / 'iter_6.pth')
        assert find_resumable(moved) == str(moved / 'iter_4.pth')


def test_another_folder_of_checkpoints_has_more_than_the_last(killed, tmp_path):
    work_dir, files = tmp_path / 'run', tmp_path / 'disk' / 'run'  # as of out_dir
    work_dir.mkdir()
    shutil.copytree(killed, files)
    (files / 'last_checkpoint').unlink()
    (work_dir / 'last_checkpoint').write_text(str(files / 'iter_6.pth'))
    assert find_resumable(work_dir) == str(files / 'iter_6.pth')
    (files / 'iter_6.pth').write_text('damaged')
    assert find_resumable(work_dir) == str(files / 'iter_4.pth')


def test_what_is_named_counts_not_its_namesake_in_the_work_folder(killed, tmp_path):
    """As after a full disk: the run went on with ``out_dir``."""
    work_dir, files = tmp_path / 'run', tmp_path / 'disk' / 'run'
    shutil.copytree(killed, work_dir)
    shutil.copytree(killed, files)
    (files / 'last_checkpoint').unlink()
    (work_dir / 'last_checkpoint').write_text(str(files / 'iter_6.pth'))
    assert find_resumable(work_dir) == str(files / 'iter_6.pth')
    assert start_afresh(work_dir) == str(files / 'iter_6.pth')
    # Without the disk it looks as if the run was moved.
    files.rename(tmp_path / 'elsewhere')
    MMLogger.get_instance('named', log_file=str(tmp_path / 'log'))
    assert find_resumable(work_dir) == str(work_dir / 'iter_6.pth')
    expected = (
        'disk/run/iter_6.pth, the last checkpoint, is damaged, without optimizer, or'
    )
    assert expected in (tmp_path / 'log').read_text()


def test_a_relative_folder_is_not_taken_for_a_moved_one(killed, tmp_path, monkeypatch):
    shutil.copytree(killed, tmp_path / 'run')
    path = tmp_path / 'run' / 'iter_6.pth'
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(path))
    monkeypatch.chdir(tmp_path)
    MMLogger.get_instance('relative', log_file=str(tmp_path / 'log'))
    assert find_resumable('run') == 'run/iter_6.pth'
    assert not (tmp_path / 'log').read_text()


def test_a_start_from_scratch_sets_the_earlier_run_aside(interrupted):
    """Also if it dies before its first checkpoint, or that one is damaged."""
    earlier = sorted(interrupted.glob('*.pth'))
    # A start that fails at once changes nothing.
    assert train(tiny_pretraining(interrupted), (KillHook, 'before_train_iter', 1)) < 0
    assert find_resumable(interrupted) == str(interrupted / 'iter_6.pth')
    assert train(tiny_pretraining(interrupted), (KillHook, 'before_train_iter', 2)) < 0
    assert find_resumable(interrupted) is None
    assert sorted(interrupted.glob('*.pth')) == earlier  # nothing is deleted
    assert not (interrupted / 'last_checkpoint').exists()  # MMEngine would read it
    log = max(interrupted.glob('*/*.log')).read_text()
    last = interrupted / 'iter_6.pth'
    assert f'To continue the earlier run then: --resume {last}' in log
    assert train(tiny_pretraining(interrupted), (KillHook, 'before_train_iter', 4)) < 0
    path = interrupted / 'iter_2.pth'
    assert find_resumable(interrupted) == str(path)
    path.write_text('damaged')
    with pytest.raises(UserError, match='No checkpoint in .* is complete'):
        find_resumable(interrupted)
    cfg = tiny_pretraining(interrupted)
    cfg.update(resume=True, load_from=str(last))
    assert train(cfg, (KillHook, 'before_train_iter', 1)) < 0
    assert find_resumable(interrupted) == str(last)
    resume(interrupted, find_resumable(interrupted))
    assert find_resumable(interrupted) == str(interrupted / 'iter_9.pth')


@pytest.mark.parametrize('elsewhere', [False, True], ids=['work_dir', 'out_dir'])
def test_a_roll_back_stays_one_also_if_the_run_dies(interrupted, elsewhere):
    """It goes on with an older checkpoint, and dies before it saves the next."""
    cfg = tiny_pretraining(interrupted)
    if elsewhere:
        work_dir = interrupted / 'run' / interrupted.name
        work_dir.mkdir(parents=True)
        (interrupted / 'last_checkpoint').rename(work_dir / 'last_checkpoint')
        cfg.work_dir = str(work_dir)
        cfg.default_hooks.checkpoint.out_dir = str(interrupted.parent)
    cfg.update(resume=True, load_from=str(interrupted / 'iter_4.pth'))
    assert train(cfg, (KillHook, 'before_train_iter', 1)) < 0
    assert find_resumable(cfg.work_dir) == str(interrupted / 'iter_4.pth')


def test_a_run_in_a_new_folder_says_where_it_came_from(killed, tmp_path):
    """If it dies before it saves, so that there is nothing to continue."""
    cfg = tiny_pretraining(tmp_path / 'run')
    cfg.update(resume=True, load_from=str(killed / 'iter_6.pth'))
    assert train(cfg, (KillHook, 'before_train_iter', 2)) < 0
    MMLogger.get_instance('new folder', log_file=str(tmp_path / 'log'))
    assert find_resumable(tmp_path / 'run') is None
    expected = f'so it starts anew. To continue from an earlier one: --resume {killed}'
    assert expected in (tmp_path / 'log').read_text()
    assert train(cfg, (KillHook, 'before_train_iter', 3)) < 0
    assert find_resumable(tmp_path / 'run') == str(tmp_path / 'run' / 'iter_8.pth')
    # Once it has saved, it keeps that, also if it goes back and dies.
    assert train(cfg, (KillHook, 'before_train_iter', 1)) < 0
    assert find_resumable(tmp_path / 'run') == str(tmp_path / 'run' / 'iter_8.pth')


def test_what_was_resumed_by_hand_is_no_start_from_scratch(interrupted):
    """As by ``runner.resume(FILE)``."""
    runner = build_runner(tiny_pretraining(interrupted))
    (hook,) = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
    runner.train_loop._iter = 6
    hook.before_train(runner)
    hook.after_train_iter(runner, 6)
    assert find_resumable(interrupted) == str(interrupted / 'iter_6.pth')


def test_a_start_from_scratch_keeps_the_latest_of_each_earlier_run(tmp_path):
    """It names it, and saves a ``latest.pth`` of its own."""
    cfg = tiny_pretraining(tmp_path)
    cfg.default_hooks.preemption.minutes = 1e-9
    cfg.default_hooks.checkpoint.interval = 100
    latest, kept = tmp_path / 'latest.pth', []
    for number in (1, 2, 3):
        assert train(cfg, (KillHook, 'before_train_iter', 1 + number)) < 0
        kept.append(latest.read_bytes())
    names = [tmp_path / f'earlier_latest_{number}.pth' for number in (1, 2)]
    assert [path.read_bytes() for path in (*names, latest)] == kept
    assert (tmp_path / 'earlier_checkpoint').read_text() == str(names[1])
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert f'To continue the earlier run then: --resume {names[1]}' in log
    cfg.update(resume=True, load_from=str(names[1]))
    assert train(cfg, (KillHook, 'before_train_iter', 1)) < 0
    assert find_resumable(tmp_path) == str(names[1])


def test_checkpoints_count_also_after_the_clock_was_set_back(tmp_path):
    mark = tmp_path / 'earlier_checkpoint'
    mark.touch()
    os.utime(mark, (2**32, 2**32))  # in the year 2106
    assert train(tiny_pretraining(tmp_path), (KillHook, 'before_train_iter', 6)) < 0
    assert noted(tmp_path) == find_resumable(tmp_path) == str(tmp_path / 'iter_4.pth')
    (tmp_path / 'iter_4.pth').write_text('damaged')
    assert find_resumable(tmp_path) == str(tmp_path / 'iter_2.pth')


def test_a_home_folder_is_found(interrupted, monkeypatch):
    """As of ``--resume=~/run/iter_6.pth``, which shells leave alone."""
    monkeypatch.setenv('HOME', str(interrupted))
    runner = SimpleNamespace(
        work_dir=interrupted, _resume=True, _load_from='~/iter_6.pth'
    )
    SafeCheckpointHook().before_run(runner)
    assert runner._load_from == str(interrupted / 'iter_6.pth')


@pytest.mark.parametrize('key', ['optimizer', 'param_scheduler'])
def test_a_run_goes_on_with_a_checkpoint_that_has_all(tmp_path, key):
    cfg = tiny_pretraining(tmp_path)
    cfg.default_hooks.checkpoint[f'save_{key}'] = False
    cfg.default_hooks.preemption.minutes = 1e-9
    assert train(cfg, (KillHook, 'before_train_iter', 7)) < 0
    # Before latest.pth of the same iteration.
    assert (tmp_path / 'iter_6.pth').exists()
    assert find_resumable(tmp_path) == str(tmp_path / 'latest.pth')
    cfg.update(resume=True, load_from=find_resumable(tmp_path))
    cfg.default_hooks.preemption.minutes = None
    assert train(cfg) == 0
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_9.pth')
    assert {path.name for path in tmp_path.glob('*.pth')} == {
        'iter_8.pth',
        'iter_9.pth',
    }


def save_a_best(folder, epoch, before):
    """Let a run in a folder save its best, after another best checkpoint."""
    cfg = tiny_finetuning(folder)
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.update(save_best='top1', rule='greater')
    runner = build_runner(cfg)
    (hook,) = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
    runner.message_hub.update_info('best_ckpt', str(before))
    hook.before_train(runner)
    runner.train_loop._epoch = epoch
    hook.after_val_epoch(runner, dict(top1=50.0))


def test_a_moved_run_replaces_its_best(tmp_path):
    name = 'best_top1_epoch_1.pth'
    (tmp_path / 'moved_best').mkdir()
    (tmp_path / 'moved_best' / name).touch()
    save_a_best(tmp_path / 'moved_best', 2, before=tmp_path / 'before' / name)
    assert best(tmp_path / 'moved_best') == ['best_top1_epoch_2.pth']


def test_the_best_of_another_folder_is_left_alone(tmp_path):
    theirs = tmp_path / 'other' / 'best_top1_epoch_1.pth'
    older = 'best_top1_epoch_0.pth'
    for folder in (theirs.parent, tmp_path / 'run'):
        folder.mkdir()
        (folder / older).touch()
    theirs.touch()
    save_a_best(tmp_path / 'run', 1, before=theirs)
    assert best(theirs.parent) == best(tmp_path / 'run') == [older, theirs.name]


def test_the_runner_may_change_what_it_is_given(tmp_path):
    """FlexibleRunner counts the iterations of a checkpoint up by one."""

    class Flexible:
        work_dir = tmp_path

        def save_checkpoint(self, out_dir, name, meta, **kwargs):
            meta.update(iter=meta['iter'] + 1)
            (tmp_path / name).touch()

    meta = dict(iter=10)
    SafeSaving(Flexible()).save_checkpoint(tmp_path, 'a.pth', meta=meta)
    assert meta == dict(iter=10) and (tmp_path / 'a.pth').exists()


def test_a_checkpoint_that_waits_is_saved_at_the_end(tmp_path):
    """Three iterations, of which two make an update."""
    cfg = tiny_finetuning(tmp_path)
    cfg.default_hooks.preemption.minutes = None
    runner = build_runner(cfg)
    runner.register_hook(StopAfter(3), 'LOWEST')
    runner.train()
    assert (tmp_path / 'epoch_1.pth').exists()


class StopAfter(Hook):
    def __init__(self, iterations):
        self.iterations = iterations

    def after_train_iter(self, runner, *args, **kwargs):
        runner.train_loop.stop_training = runner.iter + 1 >= self.iterations


def test_other_trained_parameters_are_refused(interrupted):
    def freeze(cfg):
        cfg.model.backbone.frozen_stages = 0

    with pytest.raises(UserError, match='does not fit: .* with the same frozen_stages'):
        resume(interrupted, interrupted / 'iter_6.pth', freeze)


@pytest.mark.parametrize('kind', ['SGD', 'Adam', 'Adamax'])
def test_another_optimizer_is_refused(interrupted, kind):
    def change(cfg):
        cfg.optim_wrapper.optimizer = dict(type=kind, lr=0.1)

    with pytest.raises(UserError, match=f'is AdamW, that of the config {kind}. Resume'):
        resume(interrupted, interrupted / 'iter_6.pth', change)


@pytest.mark.parametrize('text', [None, dict(a=1)])
def test_another_optimizer_is_refused_also_without_its_config(interrupted, text):
    def change(cfg):
        cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)

    path = interrupted / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta']['cfg'] = text
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match='has no momentum, as SGD of the config has'):
        resume(interrupted, path, change)


def test_options_that_pytorch_has_added_since_are_no_other_optimizer(interrupted):
    path = interrupted / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=True)
    for group in checkpoint['optimizer']['param_groups']:
        for name in ('maximize', 'foreach', 'differentiable', 'fused'):
            del group[name]
    torch.save(checkpoint, path)
    resume(interrupted, path)


def test_run_without_checkpoints_has_none_to_resume(tmp_path):
    assert find_resumable(tmp_path) is None


def test_unfinished_files_are_removed_at_the_next_start(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    assert train(cfg, (KillHook, 'writing', 2)) == -9
    assert (tmp_path / 'iter_4.pth.partial').exists()
    assert not (tmp_path / 'iter_4.pth').exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_2.pth')
    resume(tmp_path, tmp_path / 'iter_2.pth')
    assert not list(tmp_path.glob('*.partial'))
    # max_keep_ckpts=2
    assert {path.name for path in tmp_path.glob('*.pth')} == {
        'iter_8.pth',
        'iter_9.pth',
    }


def test_folders_of_sharded_checkpoints_are_replaced_whole(tmp_path, monkeypatch):
    """A kill between any two steps leaves the old one, whole."""
    path, partial = tmp_path / 'latest.pth', tmp_path / 'latest.pth.partial'
    for folder, content in ((path, 'old'), (partial, 'new')):
        folder.mkdir()
        (folder / 'part').write_text(content)

    def killed(source, target):
        if source == partial:
            raise KeyboardInterrupt
        replace(source, target)

    replace = os.replace
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, 'replace', killed)
        publish(partial, path)
    assert not path.exists()
    shutil.copytree(tmp_path, tmp_path / 'copy')
    assert find_resumable(tmp_path / 'copy') == str(tmp_path / 'copy' / 'latest.pth')
    shutil.rmtree(tmp_path / 'copy')
    runner = SimpleNamespace(work_dir=tmp_path, _resume=True, _load_from=None)
    SafeCheckpointHook().before_run(runner)
    assert runner._load_from == str(path) and (path / 'part').read_text() == 'old'

    publish(partial, path)
    assert (path / 'part').read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]

    old = tmp_path / 'latest.pth.old.partial'
    old.mkdir()
    (old / 'part').write_text('old')
    prepare_folder(tmp_path)
    assert (path / 'part').read_text() == 'new' and not old.exists()
    path.rename(old)
    prepare_folder(tmp_path)
    assert (path / 'part').read_text() == 'new' and not old.exists()


def test_a_checkpoint_that_cannot_be_removed_is_a_warning(tmp_path):
    runner = build_runner(tiny_pretraining(tmp_path))
    (hook,) = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
    hook.before_train(runner)
    path = tmp_path / 'iter_2.pth'
    path.symlink_to(tmp_path)  # which is no folder that Python removes
    hook.remove_checkpoint(path.name)
    assert path.exists()
    assert f'{path} stays: ' in next(tmp_path.glob('*/*.log')).read_text()


def test_a_best_that_is_not_measured_is_a_warning(tmp_path):
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg.max_epochs = 1
    cfg.default_hooks.checkpoint.update(save_best='probe/top1', rule='greater')
    runner = build_runner(cfg)
    runner.train()
    (log,) = tmp_path.glob('*/*.log')
    expected = 'No best checkpoint: save_best=probe/top1 was not measured, but accuracy'
    assert expected in log.read_text()
    assert runner.epoch == 1 and not list(tmp_path.glob('best_*'))


def test_a_best_without_a_rule_says_what_to_set():
    with pytest.raises(UserError, match=r'checkpoint\.rule to greater or less'):
        SafeCheckpointHook(interval=1, save_best='features/rank_stage3')


def test_float16_begins_with_a_loss_scale_of_its_own():
    """A run in bfloat16 has none."""
    checkpoint = dict(optimizer=dict(loss_scaler={}))
    _drop_empty_scale(checkpoint)
    assert checkpoint == dict(optimizer={})
    checkpoint = dict(optimizer=dict(loss_scaler=dict(scale=2.0)))
    _drop_empty_scale(checkpoint)
    assert checkpoint['optimizer']['loss_scaler'] == dict(scale=2.0)


def best(folder):
    return sorted(path.name for path in folder.glob('best_*'))


def test_the_best_of_auto_is_one_file_also_after_resuming(tmp_path):
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg.max_epochs = 1
    for epoch in range(2):
        runner = build_runner(cfg)
        (hook,) = [x for x in runner.hooks if isinstance(x, SafeCheckpointHook)]
        runner.train()
        assert best(tmp_path) == [f'best_accuracy_top1_epoch_{epoch + 1}.pth']
        assert hook.best_ckpt_path == str(tmp_path / best(tmp_path)[0])
        path = tmp_path / f'epoch_{epoch + 1}.pth'
        checkpoint = torch.load(path, weights_only=False)
        checkpoint['message_hub']['runtime_info']['best_score'] = -1.0  # easily beaten
        torch.save(checkpoint, path)
        cfg.update(resume=True, load_from=str(path), experiment_name='resumed')
        cfg.train_cfg.max_epochs = 2


def test_a_best_that_a_killed_process_left_is_removed(tmp_path):
    """It had saved the next one, and noted it."""
    cfg = tiny_finetuning(tmp_path)
    cfg.default_hooks.checkpoint.update(save_best='top1', rule='greater')
    cfg.custom_hooks = []
    names = ['best_top1_epoch_9.pth', 'best_top1_epoch_10.pth']
    kept = ['best_top1_epoch_11.pth', 'best_top1_iter_3.pth', 'best_top5_epoch_9.pth']
    earlier = 'best_top1_epoch_2.pth'
    for name in ('earlier_checkpoint', earlier, *names, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / earlier, (0, 0))
    runner = build_runner(cfg)
    (hook,) = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
    runner.message_hub.update_info('best_ckpt', str(tmp_path / names[1]))
    hook.before_train(runner)
    assert best(tmp_path) == sorted([earlier, names[1], *kept])
    # If it is gone, the one before is the best that is left.
    (tmp_path / names[1]).rename(tmp_path / names[0])
    hook.before_train(runner)
    assert best(tmp_path) == sorted([earlier, names[0], *kept])


def test_a_best_is_noted_in_the_last_checkpoint_also_after_resuming(tmp_path):
    """Else a second kill forgets it, and a worse one counts as the best."""
    cfg = tiny_finetuning(tmp_path)
    cfg.optim_wrapper.accumulative_counts = 1
    cfg.train_cfg.max_epochs = 1
    assert train(cfg, (KillHook, 'after_val_iter', 1)) < 0
    cfg.update(resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    build_runner(cfg).train()
    assert best(tmp_path) == ['best_accuracy_top1_epoch_1.pth']
    last = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert 'best_score' in last['message_hub']['runtime_info']


@pytest.mark.parametrize('keys', [['top1'], ['top1', 'top5']], ids=len)
def test_the_best_is_kept_until_the_next_one_is_written(tmp_path, keys):
    cfg = tiny_finetuning(tmp_path)
    cfg.custom_hooks = []
    cfg.default_hooks.checkpoint.update(save_best=keys, rule='greater')
    runner = build_runner(cfg)
    (hook,) = [each for each in runner.hooks if isinstance(each, SafeCheckpointHook)]
    hook.before_train(runner)
    hook.last_ckpt = None
    runner.train_loop._epoch = 1
    hook.after_val_epoch(runner, dict.fromkeys(keys, 50.0))
    first = [f'best_{key}_epoch_1.pth' for key in keys]
    assert best(tmp_path) == first

    disk = FullDisk()
    runner.train_loop._epoch, runner.train_loop._iter = 2, 10
    runner.register_hook(disk, 'LOWEST')
    try:
        with pytest.raises(UserError, match='cannot be written'):
            hook.after_val_epoch(runner, dict.fromkeys(keys, 60.0))
    finally:
        disk.free()
    runner._hooks.remove(disk)
    assert best(tmp_path) == first

    hook.after_val_epoch(runner, dict.fromkeys(keys, 70.0))
    assert best(tmp_path) == [f'best_{key}_epoch_2.pth' for key in keys]
    hook.after_val_epoch(runner, dict.fromkeys(keys, 10.0))
    assert best(tmp_path) == [f'best_{key}_epoch_2.pth' for key in keys]
    runner.train_loop._epoch = 3
    hook.after_val_epoch(runner, dict.fromkeys(keys, 80.0))
    assert best(tmp_path) == [f'best_{key}_epoch_3.pth' for key in keys]


def test_damage_of_the_directory_of_a_file_is_no_crash(interrupted):
    path = interrupted / 'iter_6.pth'
    content = bytearray(path.read_bytes())
    for position in range(len(content) - 400, len(content), 3):
        damaged = content.copy()
        damaged[position] ^= 0x54
        path.write_bytes(damaged)
        is_complete(path)  # True or False, and no error


@pytest.mark.parametrize('key', ['optimizer', 'param_schedulers'])
def test_checkpoint_without_training_state_is_refused(interrupted, key):
    path = interrupted / 'iter_6.pth'
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint[key]
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=f'has no {key}, so no .*load_from=FILE'):
        resume(interrupted, path)


def test_without_its_average_a_run_continues_from_the_trained_weights(tmp_path):
    cfg = tiny_pretraining(tmp_path)
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.01)]
    assert train(cfg, (KillHook, 'before_train_iter', 3)) < 0
    saved = torch.load(tmp_path / 'iter_2.pth', weights_only=True)
    cfg.update(resume=True, load_from=str(tmp_path / 'iter_2.pth'), custom_hooks=[])
    cfg.train_cfg = dict(type='ResumableIterLoop', max_iters=2)  # which are done
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = build_runner(cfg)
    runner.train()
    name = 'backbone.patch_embed.proj.weight'
    got = runner.model.state_dict()[name]
    assert torch.equal(got, saved['ema_state_dict'][f'module.{name}'])
    assert not torch.equal(got, saved['state_dict'][name])
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'is of a run with EMAHook, which the config leaves out' in log


def test_checkpoint_of_another_model_is_refused(interrupted):
    def widen(cfg):
        cfg.model.neck.update(decoder_embed_dims=32)

    with pytest.raises(UserError, match='is of another model .*neck'):
        resume(interrupted, interrupted / 'iter_6.pth', widen)


def test_checkpoints_wait_for_the_end_of_an_accumulation(tmp_path):
    """Three iterations in an epoch, two in an update; also the best ones wait."""
    cfg = tiny_finetuning(tmp_path)
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.preemption.minutes = None
    cfg.default_hooks.checkpoint.max_keep_ckpts = -1
    assert train(cfg) == 0
    metas = [
        torch.load(tmp_path / f'epoch_{epoch}.pth', weights_only=True)['meta']
        for epoch in (1, 2)
    ]
    assert [(meta['epoch'], meta['iter']) for meta in metas] == [(1, 4), (2, 6)]


def test_deepspeed_tells_whether_gradients_wait():
    """By its engine, whose steps alone change the weights once in a while."""
    engine = SimpleNamespace(micro_steps=3, gradient_accumulation_steps=lambda: 2)
    optim_wrapper = DeepSpeedOptimWrapper(torch.optim.SGD([torch.ones(1)], lr=1.0))
    runner = SimpleNamespace(
        model=MMDeepSpeedEngineWrapper(model=engine), optim_wrapper=optim_wrapper
    )
    assert not accumulated(runner)
    engine.micro_steps = 4
    assert accumulated(runner)


def test_gradients_of_any_optimizer_may_wait():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    wrappers = [
        OptimWrapper(torch.optim.SGD([weight], lr=0.1), accumulative_counts=counts)
        for counts, weight in enumerate(weights, 1)
    ]
    both = OptimWrapperDict(first=wrappers[0], second=wrappers[1])
    runner = SimpleNamespace(model=None, optim_wrapper=both)
    found = []
    for _ in range(4):
        for wrapper, weight in zip(wrappers, weights, strict=True):
            wrapper.update_params(weight.sum())
        found.append(accumulated(runner))
    assert found == [False, True, False, True]
