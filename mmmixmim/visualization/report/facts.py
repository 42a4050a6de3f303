"""What was trained on what."""

from __future__ import annotations

import numpy as np

from mmmixmim.runtime.entries import config_entry, training_precision
from mmmixmim.text import plural

from .run import RecordedRun, pretrained_model


def facts_of(run: RecordedRun) -> dict[str, str]:
    """Say what was trained on what, as far as the files of the run tell it."""
    dataset = dataset_of(run, 'train')
    validation = 'Held-out images' if is_pretraining(run) else 'Validation images'
    facts = {
        'Method': _text(run, 'model.type'),
        'Encoder': _encoder(run),
        'Parameters': _count(run, 'parameters'),
        'Image size': _image_size(run),
        'Mask ratio': _mask_ratio(run),
        'Dataset': ', '.join(
            str(dataset[key])
            for key in ('type', 'dataset', 'data_root', 'ann_file', 'shards')
            if dataset.get(key) and isinstance(dataset[key], str)
        ),
        'Training images': _images(run),
        validation: _held_out(run),
        'Batch size': _batch_size(run),
        'Length': progress(run),
        'Optimizer': _optimizer(run),
        'Highest learning rate in the log': _highest_rate(run),
        'Precision': _precision(run),
        'Seed': _text(run, 'randomness.seed'),
        'Speed': _speed(run),
        'Started': ', resumed '.join(f'{time:%Y-%m-%d %H:%M}' for time in run.started),
        'Checkpoints': ', '.join(path.name for path in run.checkpoints) or 'none yet',
    }
    return {name: fact for name, fact in facts.items() if fact}


def _progress(run: RecordedRun) -> tuple[int, int | None, str]:
    """What is done and planned, if that is known, and the unit."""
    if run.iters_per_epoch:
        done, unit = run.iteration // run.iters_per_epoch, 'epochs'
        planned = config_entry(run.config, 'train_cfg.max_epochs')
    else:
        done, unit = run.iteration, 'iterations'
        planned = config_entry(run.config, 'train_cfg.max_iters')
    # The log may leave out the last iterations of a run; its checkpoint tells.
    saved = {file.stem for file in run.checkpoints}
    if saved & {f'epoch_{planned}', f'iter_{planned}'}:
        done = planned
    return done, planned, unit


def progress(run: RecordedRun) -> str:
    """Say how far the run is."""
    done, planned, unit = _progress(run)
    return f'{done} {unit}' if planned is None else f'{done} of {planned} {unit}'


def step_name(run: RecordedRun, step: int) -> str:
    """Name an iteration, with its epoch if there are epochs."""
    if not run.iters_per_epoch:
        return f'iteration {step}'
    return f'epoch {step / run.iters_per_epoch:.3g}, iteration {step}'


def is_complete(run: RecordedRun) -> bool:
    """Whether the run has reached its planned end."""
    done, planned, _ = _progress(run)
    return planned is not None and done >= planned


def is_pretraining(run: RecordedRun) -> bool:
    """Whether the run pretrains an encoder."""
    return pretrained_model(run.config) is not None


def _text(run: RecordedRun, key: str) -> str:
    value = config_entry(run.config, key)
    return '' if value is None else str(value)


def dataset_of(run: RecordedRun, split: str) -> dict:
    """Config of the dataset of a dataloader, inside of wrappers."""
    node = config_entry(run.config, f'{split}_dataloader.dataset')
    while isinstance(node, dict) and isinstance(node.get('dataset'), dict):
        node = node['dataset']
    return node if isinstance(node, dict) else {}


def _encoder(run: RecordedRun) -> str:
    arch = config_entry(run.config, 'model.backbone.arch')
    if isinstance(arch, dict):
        arch = ', '.join(f'{name} {value}' for name, value in sorted(arch.items()))
    return ', '.join(filter(None, (_text(run, 'model.backbone.type'), arch)))


def _image_size(run: RecordedRun) -> str:
    size = config_entry(run.config, 'model.backbone.img_size')
    channels = config_entry(run.config, 'model.backbone.in_channels')
    if size is None:
        return ''
    size = ' x '.join(map(str, size)) if isinstance(size, list) else f'{size} x {size}'
    channels = f', {plural(channels, "channel")}' if channels else ''
    return f'{size} pixels{channels}'


def _count(run: RecordedRun, name: str) -> str:
    return f'{run.counts[name]:,}' if name in run.counts else ''


def _mask_ratio(run: RecordedRun) -> str:
    if run.mask_ratio is None:
        return ''
    more = config_entry(run.config, 'model.range_mask_ratio')
    if isinstance(more, (int, float)) and more:
        return f'{run.mask_ratio:g} to {run.mask_ratio + more:g}'
    return f'{run.mask_ratio:.3g}'


def _images(run: RecordedRun) -> str:
    if 'images' in run.counts:
        return _count(run, 'images')
    batch = config_entry(run.config, 'train_dataloader.batch_size')
    if not run.iters_per_epoch or not isinstance(batch, int):
        return ''
    if run.config.get('launcher', 'none') != 'none':
        return f'{run.iters_per_epoch} batches of {batch} per process and epoch'
    images = run.iters_per_epoch * batch
    return f'at most {images} ({run.iters_per_epoch} batches of {batch})'


def _held_out(run: RecordedRun) -> str:
    if 'held_out' in run.counts:
        return _count(run, 'held_out') if run.counts['held_out'] else 'none'
    held_out = dataset_of(run, 'val').get('held_out')
    return '' if held_out is None else str(held_out)


def _batch_size(run: RecordedRun) -> str:
    size = _text(run, 'train_dataloader.batch_size')
    processes = run.counts.get('processes', 1)
    if size and processes > 1:
        size += f' in each of {processes} processes'
    accumulated = config_entry(run.config, 'optim_wrapper.accumulative_counts')
    if size and isinstance(accumulated, int) and accumulated > 1:
        size += f', {accumulated} batches per step'
    return size


def _optimizer(run: RecordedRun) -> str:
    decay = config_entry(run.config, 'optim_wrapper.optimizer.weight_decay')
    name = _text(run, 'optim_wrapper.optimizer.type')
    return name + (f', weight decay {decay}' if name and decay is not None else '')


def _highest_rate(run: RecordedRun) -> str:
    rates = [rate for _, rate in run.history.get('lr', [])]
    return f'{max(rates):.3g}' if rates else ''


def _precision(run: RecordedRun) -> str:
    names = dict(fp32='float32', bf16='mixed, bfloat16', fp16='mixed, float16')
    return names.get(training_precision(run.config), '')


def _speed(run: RecordedRun) -> str:
    seconds = [value for _, value in run.history.get('time', [])]
    if not seconds:
        return ''
    median = float(np.median(seconds))
    batch = config_entry(run.config, 'train_dataloader.batch_size')
    speed = f'{median:.2g} s per iteration'
    if isinstance(batch, int) and median > 0:
        speed += f', {batch / median:.3g} images/s per device'
    return f'{speed} (median, without validations)'
