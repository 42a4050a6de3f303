"""What was trained on what, and what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np

from .run import Run


@dataclass(frozen=True)
class Command:
    """A command to run next.

    Args:
        purpose: What it is for.
        text: The command.
    """

    purpose: str
    text: str


def facts_of(run: Run) -> dict[str, str]:
    """Say what was trained on what, as far as config and scalars tell it."""
    dataset = _dataset(run, 'train')
    facts = {
        'Method': _text(run, 'model.type'),
        'Encoder': _encoder(run),
        'Image size': _image_size(run),
        'Mask ratio': _text(run, 'model.mask_ratio'),
        'Dataset': ', '.join(
            str(dataset[key])
            for key in ('type', 'dataset', 'data_root', 'ann_file')
            if dataset.get(key) and isinstance(dataset[key], str)
        ),
        'Images per epoch': _images(run),
        'Held-out images': _held_out(run),
        'Batch size': _text(run, 'train_dataloader.batch_size'),
        'Length': progress(run),
        'Optimizer': _optimizer(run),
        'Highest learning rate': _highest_rate(run),
        'Precision': _precision(run),
        'Seed': _text(run, 'randomness.seed'),
        'Speed': _speed(run),
        'Started': ', resumed '.join(f'{time:%Y-%m-%d %H:%M}' for time in run.started),
    }
    facts['Checkpoints'] = (
        ', '.join(path.name for path in run.checkpoints) or 'none yet'
    )
    return {name: fact for name, fact in facts.items() if fact}


def progress(run: Run) -> str:
    """Say how far the run is."""
    if run.iters_per_epoch:
        done, unit = run.iteration // run.iters_per_epoch, 'epochs'
        planned = _get(run.config, 'train_cfg.max_epochs')
    else:
        done, unit = run.iteration, 'iterations'
        planned = _get(run.config, 'train_cfg.max_iters')
    # The log may leave out the last iterations of a run; its checkpoint tells.
    saved = {file.stem for file in run.checkpoints}
    if saved & {f'epoch_{planned}', f'iter_{planned}'}:
        done = planned
    if planned is None:
        return f'{done} {unit}'
    return f'{done} of {planned} {unit}'


def when(run: Run, step: int) -> str:
    """Name an iteration, with its epoch if there are epochs."""
    if not run.iters_per_epoch:
        return f'iteration {step}'
    return f'epoch {step / run.iters_per_epoch:.3g}, iteration {step}'


def is_complete(run: Run) -> bool:
    """Whether the run has reached its planned end."""
    done, _, rest = progress(run).partition(' of ')
    return bool(rest) and int(done) >= int(rest.split()[0])


def commands_of(run: Run) -> list[Command]:
    """List the commands to run next."""
    folder = run.folder
    config = shlex.quote(str(folder / 'config.py'))
    commands = []
    failed = run.findings[0].severity == 'error'
    if failed:
        rate = _get(run.config, 'optim_wrapper.optimizer.lr')
        rate = f'{rate / 10:.3g}' if isinstance(rate, (int, float)) else 'RATE'
        commands.append(
            Command(
                'Start again with a tenth of the learning rate and clipped gradients',
                f'python tools/train.py {config} '
                f'--work-dir {_quote(f"{folder}-lower-lr")} --cfg-options '
                f'optim_wrapper.optimizer.lr={rate} '
                'optim_wrapper.clip_grad.max_norm=1.0',
            )
        )
    elif not is_complete(run) and run.checkpoints:
        resume = f'python tools/train.py {config} --work-dir {_quote(folder)} --resume'
        again = _text(run, 'default_hooks.preemption.resume_by')
        purpose = 'Continue the training, if it was interrupted'
        if again:
            purpose += ', by the same command again'
        commands.append(Command(purpose, again or resume))
    if not run.checkpoints:
        return commands
    checkpoint = _quote(run.checkpoints[-1])
    if not is_pretraining(run):
        test = f'python tools/test.py {config} {checkpoint}'
        return [*commands, Command('Evaluate the last checkpoint', test)]
    commands.append(
        Command(
            'Draw reconstructions of other images of these data',
            f'python tools/visualize_reconstruction.py {config} {checkpoint} --seed 1 '
            f'--out {_quote(folder / "reconstruction-1.png")}',
        )
    )
    if not failed:
        commands += [
            Command(
                'Score the frozen encoder on labelled images (a folder per class)',
                f'python -m mmmixmim probe /data/labelled --from {checkpoint}',
            ),
            Command(
                'Fine-tune the encoder on them',
                f'python -m mmmixmim finetune /data/labelled --from {checkpoint}',
            ),
        ]
    return commands


def is_pretraining(run: Run) -> bool:
    """Whether the run pretrains an encoder."""
    return _text(run, 'model.type').split('.')[-1] == 'MixMIM'


def _quote(value: object) -> str:
    return shlex.quote(str(value))


def _get(config: dict, key: str) -> object | None:
    """Look up a dotted key."""
    node = config
    for name in key.split('.'):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _text(run: Run, key: str) -> str:
    value = _get(run.config, key)
    return '' if value is None else str(value)


def _dataset(run: Run, split: str) -> dict:
    """Config of the dataset of a dataloader, inside of wrappers."""
    node = _get(run.config, f'{split}_dataloader.dataset')
    while isinstance(node, dict) and isinstance(node.get('dataset'), dict):
        node = node['dataset']
    return node if isinstance(node, dict) else {}


def _encoder(run: Run) -> str:
    arch = _get(run.config, 'model.backbone.arch')
    if isinstance(arch, dict):
        arch = ', '.join(f'{name} {value}' for name, value in sorted(arch.items()))
    return ', '.join(filter(None, (_text(run, 'model.backbone.type'), arch)))


def _image_size(run: Run) -> str:
    size = _get(run.config, 'model.backbone.img_size')
    channels = _get(run.config, 'model.backbone.in_channels')
    if size is None:
        return ''
    size = ' x '.join(map(str, size)) if isinstance(size, list) else f'{size} x {size}'
    channels = f', {channels} channel{"s" * (channels != 1)}' if channels else ''
    return f'{size} pixels{channels}'


def _images(run: Run) -> str:
    batch = _get(run.config, 'train_dataloader.batch_size')
    if not run.iters_per_epoch or not isinstance(batch, int):
        return ''
    if run.config.get('launcher', 'none') != 'none':
        return f'{run.iters_per_epoch} batches of {batch} per device'
    images = run.iters_per_epoch * batch
    return f'at most {images} ({run.iters_per_epoch} batches of {batch})'


def _held_out(run: Run) -> str:
    held_out = _dataset(run, 'val').get('held_out')
    return '' if held_out is None else str(held_out)


def _optimizer(run: Run) -> str:
    decay = _get(run.config, 'optim_wrapper.optimizer.weight_decay')
    name = _text(run, 'optim_wrapper.optimizer.type')
    return name + (f', weight decay {decay}' if name and decay is not None else '')


def _highest_rate(run: Run) -> str:
    rates = [rate for _, rate in run.history.get('lr', [])]
    return f'{max(rates):.3g}' if rates else ''


def _precision(run: Run) -> str:
    wrapper = _get(run.config, 'optim_wrapper.type')
    if wrapper == 'AmpOptimWrapper':
        return f'mixed, {_text(run, "optim_wrapper.dtype") or "float16"}'
    return 'float32' if wrapper == 'OptimWrapper' else ''


def _speed(run: Run) -> str:
    seconds = [value for _, value in run.history.get('time', [])]
    if not seconds:
        return ''
    median = float(np.median(seconds))
    batch = _get(run.config, 'train_dataloader.batch_size')
    speed = f'{median:.2g} s per iteration'
    if isinstance(batch, int) and median > 0:
        speed += f', {batch / median:.3g} images/s per device'
    return speed
