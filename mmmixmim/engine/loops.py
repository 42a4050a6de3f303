"""Training loops that continue an interrupted run bit for bit."""

from __future__ import annotations

import os
from operator import itemgetter

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from mmmixmim.datasets.samplers import ResumableBatchSampler
from mmmixmim.datasets.seeding import EPOCH, STEP, VALIDATION, SeededDataset, set_seeds
from mmmixmim.log import warn
from mmmixmim.registry import DATASETS, LOOPS
from mmmixmim.validation import UserError

from .schedulers import WarmupCosineLR
from .wrappers import unwrapped

# Arguments of a DataLoader that it keeps as attributes.
_LOADER_OPTIONS = (
    'num_workers',
    'collate_fn',
    'pin_memory',
    'timeout',
    'worker_init_fn',
    'multiprocessing_context',
    'generator',
    'prefetch_factor',
    'persistent_workers',
    'pin_memory_device',
)


class _ResumableLoop:
    """What the two loops share.

    Random numbers of a sample are a function of (seed, rank, iteration, place in the
    batch), those of a training step (masks, dropout, mixup) of (seed, rank, iteration).
    So no random state needs saving, workers may be any number, and what hooks or a
    validation draw changes nothing.
    """

    endless: bool
    with_other_batches: str  # how a run goes on that was interrupted with others

    def __init__(self, runner, dataloader: DataLoader | dict, *args, **kwargs) -> None:
        _check_map_style(dataloader, type(self).__name__)
        super().__init__(runner, dataloader, *args, **kwargs)
        self.dataloader = _resumable(self.dataloader, self.endless)
        self._rank = get_rank()

    def run_iter(self, batch_idx: int, data_batch: dict) -> None:
        """Train on one batch, as MMEngine's loops do."""
        self.runner.call_hook(
            'before_train_iter', batch_idx=batch_idx, data_batch=data_batch
        )
        set_seeds(self._seed, self._rank, STEP, self._iter)
        outputs = self.runner.model.train_step(
            data_batch, optim_wrapper=self.runner.optim_wrapper
        )
        self.runner.call_hook(
            'after_train_iter',
            batch_idx=batch_idx,
            data_batch=data_batch,
            outputs=outputs,
        )
        self._iter += 1

    def _start(self) -> int:
        """Take over seed and position, which a checkpoint may have brought.

        Returns:
            Number of batches of the current epoch that are done.
        """
        check_same_start(f'starts at iteration {self._iter} of epoch {self._epoch}')
        seed = torch.tensor(self.runner.seed)
        broadcast(seed)  # with diff_rank_seed, that of rank 0 is the one that was set
        self._seed = seed.item()
        sampler = self.dataloader.batch_sampler.sampler
        if hasattr(sampler, 'seed'):
            sampler.seed = self._seed

        hub = self.runner.message_hub
        batches = dict(
            ranks=get_world_size(),
            batch_size=self.dataloader.batch_sampler.batch_size,
            per_epoch=len(self.dataloader),
            samples=len(self.dataloader.dataset),
        )
        before = hub.get_info('batches') or self._likely(batches)
        before = dict(samples=batches['samples']) | before  # of older checkpoints
        hub.update_info('batches', batches)
        if before != batches:
            way = self.with_other_batches
            if before['per_epoch'] == batches['per_epoch']:
                way = 'It goes on at the same iteration.'
            warn(
                'The run was interrupted with other batches, so it does not continue '
                f'bit for bit: {_text(before)} then, {_text(batches)} now. '
                f'{way}'
            )
        return self._done(before['per_epoch'])

    def _likely(self, batches: dict) -> dict:
        """Batches of a checkpoint of MMEngine's loops, which do not note them."""
        epoch, now = self._epoch, batches['per_epoch']
        last = str(self.runner.message_hub.get_info('last_ckpt'))
        saved_by_epoch = os.path.basename(last).startswith('epoch_')
        within_epoch = epoch * now <= self._iter <= (epoch + 1) * now
        if not epoch or (within_epoch and not saved_by_epoch):
            return batches
        return batches | dict(per_epoch=self._iter // epoch)

    def _validate(self, time: int) -> None:
        """Validate if it is time, unless that was done before the checkpoint."""
        self._decide_current_val_interval()
        if self.runner.val_loop is None or time < max(self.val_begin, 1):
            return
        if time % self.val_interval and time != self._end:
            return
        hub = self.runner.message_hub
        if hub.get_info('last_validation') == self._iter:
            return
        # Checkpoints that the validation writes hold this already.
        hub.update_info('last_validation', self._iter)
        set_seeds(self._seed, self._rank, VALIDATION, self._iter)
        self.runner.val_loop.run()


@LOOPS.register_module()
class ResumableEpochLoop(_ResumableLoop, EpochBasedTrainLoop):
    """MMEngine's loop by epochs, which continues an interrupted run bit for bit.

    A checkpoint may be of any iteration, also in the middle of an epoch. The loop skips
    what was done by its indices, without loading it. A validation that was interrupted
    runs again.

    Args:
        *args: See MMEngine's ``EpochBasedTrainLoop``. The dataset must be map-style.
        **kwargs: As ``args``.

    Raises:
        UserError: If the dataset is not map-style, or the last batch of an epoch is
            incomplete and cannot be mixed.
    """

    endless = False
    with_other_batches = (
        'It goes on at the start of the epoch: WarmupCosineLR by epochs, other '
        'schedules by iterations.'
    )

    def run(self) -> nn.Module:
        """Train."""
        self._skip = self._start()
        self._check_last_batch()
        self.runner.call_hook('before_train')
        if not self._skip:
            self._validate(self._epoch)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate(self._epoch)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or for the rest of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        # For samplers that draw their seed.
        set_seeds(self._seed, self._rank, EPOCH, self._epoch)
        skip, self._skip = self._skip, 0
        self.dataloader.batch_sampler.start(
            self._seed, self._rank, self._epoch, self._iter, skip
        )
        for idx, data_batch in enumerate(self.dataloader, skip):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _check_last_batch(self) -> None:
        """Raise before the first epoch for a batch that would fail at its end."""
        images = getattr(unwrapped(self.runner.model), 'num_images', 2)
        batches = self.dataloader.batch_sampler
        if images <= 2 or getattr(batches, 'drop_last', True):
            return
        rest = len(batches.sampler) % batches.batch_size
        if rest % images:
            raise UserError(
                f'The last batch of an epoch has {rest} images, which cannot be mixed '
                f'{images} by {images}: set train_dataloader.drop_last=True.'
            )

    @property
    def _end(self) -> int:
        return self._max_epochs

    def _done(self, per_epoch: int) -> int:
        now = len(self.dataloader)
        done = self._iter - self._epoch * per_epoch
        # A loop by iterations notes epoch 0; with DeepSpeed, MMEngine notes one too
        # many in a checkpoint that is saved again as the best.
        if not 0 <= done <= per_epoch:
            self._epoch, done = divmod(self._iter, per_epoch)
        if per_epoch == now:
            return done
        hub = self.runner.message_hub
        validated = hub.get_info('last_validation') == self._iter
        # Continue at the start of the epoch, or at its end, and count from there.
        skip = now if done == per_epoch else 0
        self._iter = self._epoch * now + skip
        if validated or 0 < done < per_epoch:
            # Weights within an epoch are not those that its start stands for.
            hub.update_info('last_validation', self._iter)
        wrapper = self.runner.optim_wrapper
        if isinstance(wrapper, OptimWrapper):  # DeepSpeed counts by itself
            wrapper.initialize_count_status(
                self.runner.model, self._iter, self._max_iters
            )
        for schedule in self.runner.param_schedulers or ():
            if isinstance(schedule, WarmupCosineLR) and not schedule.by_epoch:
                # MMEngine counts steps twice: for the rate, and to see the end.
                schedule.last_step = schedule._global_step = self._iter
        return skip


@LOOPS.register_module()
class ResumableIterLoop(_ResumableLoop, IterBasedTrainLoop):
    """MMEngine's loop by iterations, which continues an interrupted run bit for bit.

    See :class:`ResumableEpochLoop`. A sampler that ends is started again for the next
    epoch, without a pause.

    Args:
        *args: See MMEngine's ``IterBasedTrainLoop``. The dataset must be map-style.
        **kwargs: As ``args``.

    Raises:
        UserError: If the dataset is not map-style.
    """

    endless = True
    with_other_batches = (
        'It goes on at the same iteration, schedules too, and leaves out as many '
        'batches of the new size.'
    )

    def run(self) -> nn.Module:
        """Train."""
        skip = self._start()
        self.dataloader_iterator = None  # MMEngine's
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._validate(self._iter)
        set_seeds(self._seed, self._rank, EPOCH, 0)
        self.dataloader.batch_sampler.start(
            self._seed, self._rank, iteration=self._iter, skip=skip
        )
        batches = iter(self.dataloader)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(self._iter, next(batches))
            self._validate(self._iter)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    @property
    def _end(self) -> int:
        return self._max_iters

    def _done(self, per_epoch: int) -> int:
        return self._iter


def check_same_start(start: str) -> None:
    """Raise unless all processes start the run in the same way.

    Args:
        start: How this one starts, e.g. 'starts from scratch'.

    Raises:
        UserError: If another process starts otherwise.
    """
    starts = all_gather_object(start)
    for rank, other in enumerate(starts):
        if other != starts[0]:
            raise UserError(
                f'Rank 0 {starts[0]}, and rank {rank} {other}: they see different '
                'checkpoints. Set work_dir to a folder that all machines share.'
            )


def _check_map_style(loader: DataLoader | dict, loop: str) -> None:
    dataset = loader['dataset'] if isinstance(loader, dict) else loader.dataset
    kind = dataset['type'] if isinstance(dataset, dict) else type(dataset)
    if isinstance(kind, str):
        kind = DATASETS.get(kind)
    if isinstance(kind, type) and issubclass(kind, IterableDataset):
        raise UserError(
            f'{loop} needs a map-style dataset, whose samples have an index, and '
            f'{kind.__name__} is an IterableDataset. Set train_cfg.type=mmengine.'
            f'{loop.replace("Resumable", "").replace("Loop", "BasedTrainLoop")}. '
            'With it, a stream that is resumed reads what it has seen again.'
        )


def _resumable(loader: DataLoader, endless: bool) -> DataLoader:
    """Build a loader with the same data and options, and resumable batches."""
    if not isinstance(loader, DataLoader):  # batches, as of mmpretrain's vis_scheduler
        loader = DataLoader(loader, collate_fn=itemgetter(0))
    return DataLoader(
        SeededDataset(loader.dataset),
        batch_sampler=ResumableBatchSampler(loader.batch_sampler, endless),
        **{name: getattr(loader, name) for name in _LOADER_OPTIONS},
    )


def _text(batches: dict) -> str:
    return (
        f'{batches["per_epoch"]} batches of {batches["batch_size"]} on '
        f'{batches["ranks"]} ranks from {batches["samples"]} samples'
    )
