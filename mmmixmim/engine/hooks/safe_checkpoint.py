"""Write checkpoints that a crash cannot damage."""

from __future__ import annotations

import os
import re
from collections import deque
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from mmmixmim.checkpoint.formats import StateDict
from mmmixmim.checkpoint.resumable import (
    EARLIER,
    NOTE,
    check_resumable,
    find_resumable,
    is_complete,
    noted,
    restore,
    set_earlier_aside,
    start_afresh,
    without_earlier,
)
from mmmixmim.log import warn
from mmmixmim.registry import HOOKS
from mmmixmim.runtime.entries import config_entry, type_name
from mmmixmim.runtime.files import replace_file
from mmmixmim.runtime.saved_config import read_config_text
from mmmixmim.validation import UserError

from ..schedulers.resuming import follow_config
from ..wrappers import accumulated, is_sharded, optim_wrappers, unwrapped
from .safe_saving import SafeSaving, name_last, one_error, prepare_folder


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, for runs that may be killed at any moment.

    - Files are written under another name, flushed to disk and renamed,
      ``last_checkpoint`` too. So a file is complete or not there, and
      ``last_checkpoint`` names a complete one. Old checkpoints, also the best ones, are
      removed after that.
    - Where gradients are being accumulated, the checkpoint waits for their update.
    - ``save_last`` also saves the end of a run that ``EarlyStoppingHook`` ends.
    - A folder that cannot be written is found before the training starts.
    - A run from scratch sets the checkpoints of an earlier run in its folder aside,
      after its first iteration: ``--resume`` leaves them out.
    - ``--resume`` refuses a checkpoint without training state or of another model.

    Args:
        *args: See ``CheckpointHook``.
        **kwargs: As ``args``.

    Raises:
        StoppedRunError: If a checkpoint cannot be written. The previous one is kept.
        UserError: If nothing tells whether ``save_best`` is better when larger.
    """

    def __init__(self, *args, **kwargs) -> None:
        try:
            super().__init__(*args, **kwargs)
        except ValueError as error:
            raise UserError(
                f'{error} Set default_hooks.checkpoint.rule to greater or less.'
            ) from error

    def before_run(self, runner: Runner) -> None:
        """Find the checkpoint to resume, or refuse a damaged one."""
        if is_main_process():
            restore(Path(runner.work_dir))
        barrier()
        if runner._resume is True and not runner._load_from:
            runner._load_from = find_resumable(runner.work_dir)
        if runner._resume and runner._load_from:
            runner._load_from = os.path.expanduser(runner._load_from)
        path = runner._load_from
        if runner._resume and path and '://' not in path and not is_complete(path):
            raise UserError(
                f'{path} is damaged, no checkpoint, or missing. To continue from the '
                'last one that is complete, pass --resume without a file.'
            )

    def before_train(self, runner: Runner) -> None:
        """Check the folder, find what it holds already, and start counting.

        The folder must be writable. The best checkpoint is looked up where the folder
        is now, and older ones are removed. A run from scratch notes the checkpoints of
        an earlier run, and one that goes on names the checkpoint that it comes from.
        """
        super().before_train(runner)
        # The best checkpoint is noted in the last one, also after resuming.
        self.last_ckpt = runner.message_hub.get_info('last_ckpt')
        self._waiting = None  # epoch or iteration of a checkpoint that is due
        self._stepped = None  # iterations done at the last checkpoint that was due
        self._meta = None
        if '://' not in self.out_dir:
            folder = Path(self.out_dir)
            with one_error(folder / self.filename_tmpl.format(1)):
                if is_main_process():
                    prepare_folder(folder)
        if self.save_best:
            self._best = {key: self._moved(path) for key, path in self._best.items()}
            if is_main_process():
                self._remove_replaced(runner)
        work_dir = Path(runner.work_dir)
        self._fresh = not runner._resume and not runner.iter
        with one_error(work_dir / EARLIER):
            if is_main_process() and self._fresh:
                _note_earlier(work_dir)
            elif is_main_process() and runner._load_from:
                _take_up(work_dir, Path(self.out_dir), runner._load_from)
        # Iterations done at the checkpoint that --resume takes.
        self.saved_iter = runner.iter if _is_last(runner) else None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse what cannot be continued from; take the config's optimizer options."""
        if not runner._resume:
            return
        # DeepSpeed keeps weights and optimizer elsewhere.
        if isinstance(runner.model, nn.Module):
            if not any(isinstance(each, EMAHook) for each in runner.hooks):
                _take_trained_weights(checkpoint)
            check_resumable(
                checkpoint,
                _own_state(runner),
                runner._load_from,
                scheduled=bool(runner.param_schedulers),
            )
        _check_optimizer(runner.cfg, checkpoint, runner._load_from)
        _check_groups(runner.optim_wrapper, checkpoint, runner._load_from)
        _drop_empty_scale(checkpoint)
        follow_config(runner.optim_wrapper, runner.param_schedulers, checkpoint)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Correct the position, which FlexibleRunner replaces."""
        if self._meta:
            checkpoint['meta'].update(self._meta)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Save if it is time, or was and the gradients are complete now."""
        if self._fresh:
            self._fresh = False
            work_dir = Path(runner.work_dir)
            with one_error(work_dir / EARLIER):
                if is_main_process():
                    set_earlier_aside(work_dir)
        if self._waiting is not None and accumulated(runner):
            step, self._waiting = self._waiting, None
            meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
            self._save_step(runner, step, meta)
        super().after_train_iter(runner, *args, **kwargs)

    def after_train(self, runner: Runner) -> None:
        """Save what still waits, or the end of a run that a hook has ended early.

        Gradients that wait for an update are lost.
        """
        step, self._waiting = self._waiting, None
        # A hook such as EarlyStoppingHook ends the loop.
        ended = getattr(runner.train_loop, 'stop_training', False)
        if step is None and self.save_last and ended and self._stepped != runner.iter:
            step = runner.epoch if self.by_epoch else runner.iter
        if step is not None:
            self._save_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))
        if self.last_ckpt and not self._saves_all(runner):
            self._note_last(runner)  # latest.pth goes
        super().after_train(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint if the ``save_best`` metrics were measured."""
        if not self.save_best:
            return
        wanted = set(self.key_indicators) - {'auto'}
        if metrics and not wanted <= metrics.keys():
            warn(
                f'No best checkpoint: save_best={", ".join(sorted(wanted))} was not '
                f'measured, but {", ".join(metrics)}.'
            )
            return
        old, self._best = self._best, {}  # else MMEngine removes it first
        try:
            super().after_val_epoch(SafeSaving(runner), metrics)
        except BaseException:
            self._best = old
            raise
        if 'auto' in old:  # MMEngine has chosen what tells the best
            old = {self.key_indicators[0]: old['auto']}
        new = {key: path for key, path in self._best.items() if path}
        self._best = old | new
        for key, path in old.items():
            # A run that began with a checkpoint of another folder leaves that alone.
            own = path and os.path.dirname(path) == str(self.out_dir).rstrip('/')
            if own and new.get(key, path) != path:
                self.remove_checkpoint(os.path.basename(path))

    @property
    def _best(self) -> dict[str, str | None]:
        """Paths of the best checkpoints, by metric."""
        if len(self.key_indicators) == 1:
            return {self.key_indicators[0]: self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    @_best.setter
    def _best(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = next(iter(paths.values()), None)
        else:
            self.best_ckpt_path_dict = dict.fromkeys(self.key_indicators) | paths

    def _moved(self, path: str | None) -> str | None:
        """Where a best checkpoint is now, if the work folder was moved."""
        if not path or self.file_backend.exists(path):
            return path
        own = self.file_backend.join_path(self.out_dir, os.path.basename(path))
        return own if self.file_backend.exists(own) else path

    def _remove_replaced(self, runner: Runner) -> None:
        """Remove older bests, which a process left that was killed before it could."""
        for best in map(Path, filter(None, self._best.values())):
            parts = re.fullmatch(r'(.*?)(\d+)(\D*)', best.name)
            if best.parent != Path(self.out_dir) or not parts or not best.exists():
                continue
            start, number, end = parts.groups()
            alike = re.compile(f'{re.escape(start)}(\\d+){re.escape(end)}').fullmatch
            for each in without_earlier(runner.work_dir, best.parent.glob('best_*')):
                found = alike(each.name)
                if found and int(found[1]) < int(number):
                    self.remove_checkpoint(each.name)

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint, a file or a folder, if there is one.

        Args:
            name: Its name in ``out_dir``.
        """
        path = self.file_backend.join_path(self.out_dir, name)
        if not is_main_process():
            return
        try:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of sharded checkpoints
                self.file_backend.rmtree(path)
        except OSError as error:  # the other processes would wait for this one
            warn(f'{path} stays: {error}')

    def save_now(self, runner: Runner, name: str) -> str:
        """Save in a file of its own after an iteration, whatever the interval.

        Args:
            runner: The runner, in ``after_train_iter``.
            name: Name of the file, which is replaced.

        Returns:
            Path of the file.
        """
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        return self._save(runner, name, meta, by_epoch=False, whole=True)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not accumulated(runner):
            self._waiting = step
            return
        self._save_step(runner, step, meta)

    def _save_step(self, runner: Runner, step: int, meta: dict) -> None:
        kept, expired = [], []
        if self.max_keep_ckpts > 0:
            kept = [each for each in self.keep_ckpt_ids if each != step] + [step]
            # Also in the file: if the process dies first, resuming removes them.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
            expired, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
        name = self.filename_tmpl.format(step)
        self._stepped = meta['iter']
        self._save(runner, name, meta, by_epoch=self.by_epoch)
        if expired:
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        for old in expired:
            self.remove_checkpoint(self.filename_tmpl.format(old))

    def _save(
        self,
        runner: Runner,
        name: str,
        meta: dict,
        by_epoch: bool,
        whole: bool = False,  # with all that training needs, whatever the config says
    ) -> str:
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._meta = dict(meta)
        SafeSaving(runner).save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=whole or self.save_optimizer,
            save_param_scheduler=whole or self.save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._meta = None
        if whole or self._saves_all(runner):
            self.saved_iter = meta['iter']
            self._note_last(runner)
        return self.last_ckpt

    def _saves_all(self, runner: Runner) -> bool:
        """Whether the config saves all that training needs to continue."""
        schedules = self.save_param_scheduler or not runner.param_schedulers
        return self.save_optimizer and schedules

    def _note_last(self, runner: Runner) -> None:
        folder = Path(runner.work_dir)
        with one_error(folder / NOTE):
            if is_main_process():
                name_last(folder, self.last_ckpt)


def _own_state(runner: Runner) -> StateDict | None:
    """State dict of the whole model; None for shards, which are checked as loaded."""
    if is_sharded(runner):
        strategy = getattr(runner, 'strategy', None)
        return getattr(strategy, 'whole_state', None)
    return unwrapped(runner.model).state_dict()


def _take_trained_weights(checkpoint: dict) -> None:
    """Undo that EMAHook puts the average in the place of the weights as it saves."""
    saved = checkpoint.get('ema_state_dict', {})
    if saved:
        warn(
            'The checkpoint is of a run with EMAHook, which the config leaves out. The '
            'run continues from the trained weights, without their average.'
        )
    for name, value in saved.items():
        if name.startswith('module.'):
            checkpoint['state_dict'][name.removeprefix('module.')] = value


def _check_groups(wrapper: OptimWrapper, checkpoint: dict, path: str | None) -> None:
    """Raise if other weights are trained, in other groups or by another optimizer."""
    state = checkpoint.get('optimizer') or {}
    if len(optim_wrappers(wrapper)) != 1 or 'param_groups' not in state:
        return
    own, theirs = (
        [len(group['params']) for group in groups]
        for groups in (wrapper.optimizer.param_groups, state['param_groups'])
    )
    if own != theirs:
        raise UserError(
            f'{path or "The checkpoint"} does not fit: its optimizer has {len(theirs)} '
            f'groups with {sum(theirs)} weight tensors, that of the config {len(own)} '
            f'with {sum(own)}. Resume with the same frozen_stages and '
            'optim_wrapper.paramwise_cfg.'
        )
    lacking = [
        name
        for name, value in wrapper.optimizer.defaults.items()
        # PyTorch adds switches that are newer than the checkpoint.
        if value is not None and not isinstance(value, bool)
        if not all(name in group for group in state['param_groups'])
    ]
    if lacking:  # where no config tells the type
        raise UserError(
            f'{path or "The checkpoint"} does not fit: its optimizer has no '
            f'{lacking[0]}, as {type(wrapper.optimizer).__name__} of the config has. '
            'Resume with the same optim_wrapper.optimizer.type; to start from the '
            'weights alone, set load_from=FILE without --resume.'
        )


def _check_optimizer(cfg: dict, checkpoint: dict, path: str | None) -> None:
    """Raise for an optimizer of another type, whose state would not fit."""
    text = checkpoint['meta'].get('config_text')
    before = read_config_text(text) if isinstance(text, str) else {}
    entries = [config_entry(each, 'optim_wrapper.optimizer') for each in (cfg, before)]
    if not all(isinstance(each, dict) for each in entries):
        return
    # A sharding optimizer is none itself.
    own, theirs = (each.get('optimizer_type') or type_name(each) for each in entries)
    if own != theirs:
        raise UserError(
            f'{path or "The checkpoint"} does not fit: its optimizer is {theirs}, that '
            f'of the config {own}. Resume with the same optim_wrapper.optimizer.type; '
            'to start from the weights alone, set load_from=FILE without --resume.'
        )


def _drop_empty_scale(checkpoint: dict) -> None:
    """Drop the loss scale of bfloat16, which has none; float16 starts again."""
    state = checkpoint.get('optimizer') or {}
    if not state.get('loss_scaler', True):
        del state['loss_scaler']


def _is_last(runner: Runner) -> bool:
    """Whether a run has been resumed from the checkpoint that it would resume again."""
    last = noted(runner.work_dir)
    if not (runner._resume and runner._load_from and last):
        return False
    return os.path.realpath(runner._load_from) == os.path.realpath(last)


def _take_up(folder: Path, out_dir: Path, checkpoint: str) -> None:
    """Note the checkpoint that a run continues from, for it may die before its next."""
    path = Path(checkpoint)
    if path.exists() and path.resolve().parent in (folder.resolve(), out_dir.resolve()):
        name_last(folder, checkpoint)
    elif not (folder / NOTE).exists():  # a new run, of which --resume finds nothing
        replace_file(folder / EARLIER, checkpoint)


def _note_earlier(folder: Path) -> None:
    """Start from scratch where an earlier run has left checkpoints."""
    earlier = start_afresh(folder)
    if earlier:
        warn(
            f'{folder} holds checkpoints of an earlier run. This run starts from '
            'scratch: once it trains, --resume leaves them out. To continue the '
            f'earlier run then: --resume {earlier}'
        )
