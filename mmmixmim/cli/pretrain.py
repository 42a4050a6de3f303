"""Pretrain on a folder of images, with settings chosen from data and machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from mmmixmim.checkpoint import encoder_weights, read_weights
from mmmixmim.datasets.labelled import read_paths
from mmmixmim.datasets.scan import (
    Scan,
    check_scan,
    find_images,
    fingerprint,
    scan_images,
)
from mmmixmim.validation import MissingFileError, UserError

from .config_text import Section, config_text
from .machine import this_machine
from .models import model_of_weights, pretraining_model
from .reconstruct import reconstruct
from .report import print_report
from .run import KEPT_CHECKPOINTS, Run, check_disk, print_settings, train
from .settings import Choices, choose_pretraining

# ImageNet's, of RGB images with values from 0 to 255.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]


def pretrain(
    data: str | Path,
    out: str | Path = 'runs/pretrain',
    *,
    model: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    precision: str | None = None,
    workers: int | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> Path:
    """Pretrain on unlabelled images. Settings that are None are chosen.

    The folder of the run gets the config, logs, checkpoints and the report. The same
    call again goes on with an interrupted run.

    Args:
        data: A folder of images, nested or flat; or a list of paths, as a CSV file
            with a column ``path``, or as a text file with a path per line.
        out: Folder of the run. Defaults to 'runs/pretrain'.
        model: 'micro', 'tiny', 'base', 'large' or 'huge'.
        image_size: Side of the crops that the model sees, in pixels.
        batch_size: Images per batch and device.
        epochs: Number of epochs.
        lr: Learning rate after the warm-up.
        precision: 'float32', 'bf16' or 'fp16'.
        workers: Processes that load images.
        start: Checkpoint or run whose encoder the training starts from.
        seed: Random seed. Defaults to 0.
        dry_run: Whether to stop after printing the settings. Defaults to False.

    Returns:
        The folder of the run.

    Raises:
        UserError: If the data, the machine or a setting cannot work.

    Examples:
        >>> import mmmixmim
        >>> mmmixmim.pretrain('/data/images', out='runs/first')  # doctest: +SKIP
    """
    data, out = Path(data).expanduser(), Path(out).expanduser()
    given = dict(
        model=model,
        image_size=image_size,
        batch_size=batch_size,
        epochs=epochs,
        lr=lr,
        precision=precision,
        workers=workers,
    )
    arguments = dict(data=data.absolute(), start=start, seed=seed) | given
    run = Run.open(out, 'pretrain', arguments)
    if run.finished:
        print(f'{out} has come to its end already: see {run.config.parent}.')
        return out
    if not run.exists:
        known = known_settings(start)
        files, kind = list_files(data)
        scan = cached_scan(data, files, out / 'scan.json')
        print_scan(scan, kind)
        check_scan(scan)
        machine = this_machine()
        chosen, cost = choose_pretraining(scan, machine, known, **given)
        print('\nSettings')
        print_settings(chosen)
        check_disk(out, cost.parameters)
        if dry_run:
            print('\nThis was a dry run: nothing was trained.')
            return out
        out.mkdir(parents=True, exist_ok=True)
        source = dict(data_root=str(data.absolute()))
        if data.is_file() or scan.unreadable:
            source = dict(data_root='', ann_file=str(out.absolute() / 'images.txt'))
            unreadable = set(scan.examples.get('unreadable', ()))
            kept = [str(file) for file in files if str(file) not in unreadable]
            (out / 'images.txt').write_text('\n'.join(kept) + '\n')
        run.config.write_text(_config(data, scan, source, chosen, known, start, seed))
        run.settings = {name: choice.value for name, choice in chosen.items()}
        run.data = asdict(scan)
        run.save()
    elif dry_run:
        print(f'{out} holds this run, which would go on.')
        return out
    print(f'\nTraining into {out}. Its config is {run.config}.', flush=True)
    with goes_on():
        train(run)
    reconstruct(out, seed=seed)
    run.finished = True
    run.save()
    _print_end(run)
    return out


def known_settings(start: str | Path | None) -> dict | None:
    """Settings that follow from the weights to start from.

    Raises:
        UserError: If there are no such weights.
    """
    if start is None:
        return None
    checkpoint = checkpoint_of(start)
    try:
        return model_of_weights(encoder_weights(read_weights(checkpoint)))
    except MissingFileError:
        raise
    except UserError as error:
        raise UserError(f'--from {str(start)!r}: {error}') from error


def checkpoint_of(start: str | Path) -> Path:
    """The checkpoint that a run or a file stands for."""
    path = Path(start).expanduser()
    return Run.load(path).checkpoint if path.is_dir() else path


def list_files(data: Path) -> tuple[list[Path], str]:
    """List the images of a folder or a list, and say what it is."""
    if data.is_file() and data.suffix.lower() in ('.csv', '.txt'):
        files = read_paths(data)
        with data.open() as file:
            labels = data.suffix == '.csv' and 'label' in file.readline().split(',')
        return files, 'a list with labels, which are not used' if labels else 'a list'
    files = find_images(data)
    folders = {file.relative_to(data).parts[0] for file in files if file.parent != data}
    if len(folders) > 1:
        return files, f'{len(folders)} folders, whose names are not used as labels'
    return files, 'a folder'


def cached_scan(data: Path, files: list[Path], cache: Path) -> Scan:
    """Scan the images, or read the scan of the same files back."""
    scan = Scan.load(cache)
    if scan and (scan.root, scan.fingerprint) == (str(data), fingerprint(files)):
        return scan
    with _progress(len(files)) as advance:
        scan = scan_images(data, files, progress=advance)
    scan.save(cache)
    return scan


def print_scan(scan: Scan, kind: str) -> None:
    """Print what was found, and what is odd but no reason to stop."""

    def counts(found: dict, unit: str = '') -> str:
        order = sorted(found, key=found.get, reverse=True)
        return ', '.join(f'{found[each]:,} {each}{unit}' for each in order)

    print(f'Data: {scan.root}, {kind}')
    if not scan.formats:
        return
    low, middle, high = scan.short_sides
    size = f'{scan.bytes / 1e6:,.1f} MB'
    print(f'  {scan.images:,} images, {size}: {counts(scan.formats)}')
    print(f'  shorter side {low} to {high} pixels, median {middle}')
    bits = ', '.join(f'{bits}-bit' for bits in sorted(scan.bits))
    channels = ', '.join(map(str, sorted(scan.channels)))
    print(f'  channels {channels}; {bits}')
    for name, said in (
        ('unreadable', 'cannot be read and are left out'),
        ('duplicates', 'are copies of another one; remove them to save time'),
        ('constant', f'of {scan.sampled} that were looked at are constant'),
    ):
        count = getattr(scan, name)
        if count:
            example = scan.examples.get(name) or scan.examples[name.rstrip('s')]
            print(f'  {count:,} {said}, such as {example[0]}')


@contextmanager
def goes_on() -> Iterator[None]:
    """Say how to go on when the user interrupts a run."""
    try:
        yield
    except KeyboardInterrupt:
        print('\nInterrupted. Give the same command again to go on.', flush=True)
        raise SystemExit(130) from None


def runtime_sections(chosen: Choices, seed: int) -> list[Section]:
    """Sections that all configs share."""
    interval = max(1, chosen.epochs // 20)
    hooks = dict(
        timer=dict(type='IterTimerHook'),
        logger=dict(type='LoggerHook', interval=10),
        param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(
            type='CheckpointHook', interval=interval, max_keep_ckpts=KEPT_CHECKPOINTS
        ),
        sampler_seed=dict(type='DistSamplerSeedHook'),
        visualization=dict(type='VisualizationHook', enable=False),
    )
    environment = dict(
        cudnn_benchmark=False,
        mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
        dist_cfg=dict(backend='nccl'),
    )
    return [
        Section(
            'Logs every 10 iterations, and about 20 checkpoints, of which the last '
            f'{KEPT_CHECKPOINTS} are kept.',
            dict(default_hooks=hooks),
        ),
        Section(
            'The rest of the runtime.',
            dict(
                randomness=dict(seed=seed, diff_rank_seed=True),
                env_cfg=environment,
                vis_backends=[dict(type='LocalVisBackend')],
                visualizer=dict(
                    type='UniversalVisualizer',
                    vis_backends=[dict(type='LocalVisBackend')],
                ),
                log_level='INFO',
                load_from=None,
                resume=False,
            ),
        ),
    ]


def optimizer(chosen: Choices, betas: tuple[float, float], **paramwise) -> dict:
    """``optim_wrapper`` of a config."""
    wrapper = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=chosen.lr, betas=betas, weight_decay=0.05),
    )
    if paramwise:
        wrapper |= paramwise
    if chosen.precision != 'float32':
        wrapper['type'] = 'AmpOptimWrapper'
        names = dict(bf16='bfloat16', fp16='float16')
        wrapper['dtype'] = names[chosen.precision]
        if chosen.precision == 'fp16':
            wrapper['loss_scale'] = 'dynamic'
    if chosen.accumulation > 1:
        wrapper['accumulative_counts'] = chosen.accumulation
    return wrapper


def _config(
    data: Path,
    scan: Scan,
    source: dict,
    chosen: Choices,
    known: dict | None,
    start: str | Path | None,
    seed: int,
) -> str:
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    model = pretraining_model(chosen.model, *sizes)
    if known:
        model['backbone']['init_cfg'] = dict(
            type='Pretrained',
            checkpoint=str(checkpoint_of(start).absolute()),
            prefix='backbone.',
        )
    model['data_preprocessor'] = dict(
        type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True
    )
    load = dict(type='LoadRandomResizedCrop', scale=chosen.image_size)
    load |= dict(interpolation='bicubic', ignore_empty=True)
    crop = load | dict(crop_ratio_range=(0.2, 1.0), flip_prob=0.5)
    dataset = dict(type='ImageFolder', **source)
    if chosen.held_out:
        dataset['held_out'] = chosen.held_out
    loader = dict(
        batch_size=chosen.batch_size,
        num_workers=chosen.workers,
        persistent_workers=chosen.workers > 0,
        pin_memory=True,
        drop_last=True,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        dataset=dataset | dict(pipeline=[crop, dict(type='PackInputs')]),
    )
    loop = dict(type='EpochBasedTrainLoop', max_epochs=chosen.epochs)
    hooks = [dict(type='DiagnosisHook'), dict(type='ReportHook')]
    held_out = []
    if chosen.held_out:
        loop['val_interval'] = max(1, chosen.epochs // 20)
        hooks.insert(0, dict(type='ReconstructionHook'))
        # The largest square in the middle, without draws.
        middle = load | dict(max_attempts=0, aspect_ratio_range=(1.0, 1.0))
        val_set = dict(type='ImageFolder', part='held_out')
        val_set['pipeline'] = [middle, dict(type='PackInputs')]
        val_loader = loader | dict(
            batch_size=max(1, chosen.batch_size // 2),
            drop_last=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=val_set,
        )
        measured = [dict(type='ReconstructionLoss'), dict(type='FeatureHealth')]
        held_out = [
            Section(
                'The held-out images, in pairs, always with the same crops and masks.',
                dict(
                    val_dataloader=val_loader,
                    val_cfg=dict(type='HeldOutLoop'),
                    val_evaluator=measured,
                ),
                ('held_out',),
            )
        ]
    schedule = dict(
        type='WarmupCosineLR',
        warmup=chosen.warmup,
        end=chosen.epochs,
        convert_to_iter_based=True,
    )
    sections = [
        Section('', dict(default_scope='mmmixmim')),
        Section(
            'The model. Decoder and head take their sizes from the backbone.',
            dict(model=model),
            ('model', 'image_size', 'patch_size', 'in_channels'),
        ),
        Section(
            'The data. Unreadable files are skipped, and the log names them.',
            dict(train_dataloader=loader),
            ('batch_size', 'workers'),
        ),
        *held_out,
        Section(
            'The optimizer. Biases and norms do not decay.',
            dict(
                optim_wrapper=optimizer(
                    chosen, (0.9, 0.95), paramwise_cfg=dict(flat_decay_mult=0.0)
                ),
                auto_scale_lr=dict(
                    enable=False,
                    base_batch_size=chosen.batch_size * chosen.accumulation,
                ),
            ),
            ('lr', 'precision', 'accumulation'),
        ),
        Section(
            'The schedule.',
            dict(param_scheduler=[schedule], train_cfg=loop),
            ('epochs', 'warmup'),
        ),
        Section(
            'Pictures, verdicts and the report while it trains.',
            dict(custom_hooks=hooks),
        ),
        *runtime_sections(chosen, seed),
    ]
    docstring = (
        f'Pretraining on {scan.images:,} images of {data}.\n\n'
        'Written by `python -m mmmixmim pretrain`. To train it again elsewhere:\n'
        'mim train mmmixmim config.py --work-dir FOLDER'
    )
    return config_text(docstring, sections, chosen)


def _print_end(run: Run) -> None:
    print(f'\nEncoder         {run.checkpoint}')
    print(f'Reconstruction  {run.folder / "reconstruction.png"}')
    print_report(run.folder)
    print(
        '\nNext, with a folder of images for each class:\n'
        f'  python -m mmmixmim probe /data/labelled --from {run.folder}\n'
        f'  python -m mmmixmim finetune /data/labelled --from {run.folder}'
    )


@contextmanager
def _progress(count: int) -> Iterator[Callable[[], object]]:
    """A progress bar in a terminal, nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda: None
        return
    with click.progressbar(length=count, label='Looking at the images') as bar:
        yield lambda: bar.update(1)
