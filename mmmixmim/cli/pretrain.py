"""Pretrain on a folder of images, with settings chosen from data and machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from mmmixmim.datasets import named_dataset
from mmmixmim.datasets.image_files import find_images
from mmmixmim.datasets.scan import Scan, check_scan
from mmmixmim.datasets.statistics import ChannelStatistics
from mmmixmim.datasets.unreadable import UnreadableImages
from mmmixmim.runtime import load_config
from mmmixmim.text import plural
from mmmixmim.validation import UserError
from mmmixmim.visualization.report import with_labels, write_report

from .config_writer import Section, config_text
from .data import MEAN, STD, Source, central_crop, load_transform, loader, pack
from .machine import this_machine
from .models import pretraining_model
from .reconstruct import reconstruct
from .run import Run
from .sections import optimizer, runtime_sections
from .settings import Choices, choose_pretraining, time_of_training
from .source import find_source
from .training import announce, goes_on, train
from .weights import known_settings, pretrained, warn_of_no_data


def pretrain(
    data: str | Path | Iterable,
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
    no_data: str | float | None = None,
    masks: str | Path | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> Path:
    """Pretrain on unlabelled images. Settings that are None are chosen.

    The folder of the run gets the config, logs, checkpoints and the report. The same
    call again resumes an interrupted run.

    Args:
        data: A folder of images, nested or flat; a list of paths, as a CSV or Parquet
            file with a column ``path``, or as a text file with a path per line; or
            shards, named as for :class:`mmmixmim.datasets.ShardStream`. Or, in Python,
            a list of paths; a dataset with length and index, such as a torch dataset, a
            list or an array of images; or an iterable, whose images are stored in the
            folder of the run. See :func:`mmmixmim.datasets.samples.as_sample` for what
            an image is. To resume a run on a dataset, give the same one again.
        out: Folder of the run. Defaults to 'runs/pretrain'.
        model: 'micro', 'tiny', 'base', 'large' or 'huge'; or a stock encoder, such as
            'swin-tiny', see docs/command.md.
        image_size: Side of the crops that the model sees, in pixels.
        batch_size: Images per batch and device.
        epochs: Number of epochs.
        lr: Learning rate after the warm-up.
        precision: 'float32', 'bf16' or 'fp16'.
        workers: Processes that load images.
        start: Checkpoint or run whose encoder the training starts from.
        no_data: Value of pixels without data, or 'nan'. They count nowhere. Defaults to
            None: all are data.
        masks: Folder of masks, an image each with one channel, in which 0 is no data;
            floats are weights of the pixels. They have the names of the images, or one
            other ending. Defaults to None: there are none.
        seed: Random seed. Defaults to 0.
        dry_run: Whether to stop after printing the settings. Defaults to False.

    Returns:
        The folder of the run.

    Raises:
        KeyboardInterrupt: Upon Ctrl-C, once everything is saved.
        UserError: If the data, the machine or a setting cannot work.

    Examples:
        >>> import mmmixmim
        >>> mmmixmim.pretrain('/data/images', out='runs/first')  # doctest: +SKIP
    """
    arguments = dict(locals())  # first of all: no other name is bound yet
    run = Run.open('pretrain', **arguments)
    if run.is_done(dry_run):
        if run.finished:
            _print_end(run)
        return run.folder
    with run.locked():
        if run.exists:
            _print_changes(run)
        elif not _prepare(run, data, dry_run):
            return run.folder
        with goes_on(), named_dataset(run.arguments['data'], data):
            train(run)
            reconstruct(run.folder, seed=run.arguments['seed'])
        run.finished = True
        run.save()
    _print_end(run)
    return run.folder


def _prepare(run: Run, data: str | Path | Iterable, dry_run: bool) -> bool:
    """Look at the images, choose the settings and begin the run.

    Returns:
        Whether it was begun.
    """
    out, asked = run.folder, run.arguments
    start, no_data = asked['start'], asked['no_data']
    known = known_settings(start)
    source = find_source(data, out, asked['masks'])
    scan, machine = source.scan, this_machine()
    check_scan(scan, no_data, masked=source.has_weights)
    if no_data is not None:
        print(f'  pixels of value {no_data} hold no data')
    warn_of_no_data(start, scan, no_data)
    chosen, cost = choose_pretraining(scan, machine, known, **run.given)
    duration = time_of_training(chosen, scan.images - chosen.held_out, cost, machine)
    if not announce(out, chosen, cost, duration, dry_run):
        source.discard()
        return False
    datasets = _datasets(source, chosen, no_data)
    model = _model(scan, chosen, out)
    if start:
        entry = pretrained(start, known, chosen.in_channels)
        model['backbone']['init_cfg'] = entry
    per_epoch = _stream_epoch(scan, chosen)
    sections = _sections(model, datasets, chosen, per_epoch)
    sections += runtime_sections(chosen, asked['seed'], per_epoch)
    docstring = (
        f'Pretraining on {plural(scan.images, "image")} of {scan.root}.\n\n'
        f'{source.note}'
    )
    run.begin(config_text(docstring, sections, chosen), chosen, asdict(scan))
    return True


def _model(scan: Scan, chosen: Choices, out: Path) -> dict:
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=MEAN, std=STD, to_rgb=True)
    if scan.is_raster:
        measured = ChannelStatistics.load(out / 'statistics.json')
        values = dict(mean=measured.mean, std=measured.std)
        preprocessor = dict(type='RasterDataPreprocessor', **values)
    preprocessor['non_blocking'] = True  # images are copied while the GPU computes
    model = pretraining_model(chosen.model, *sizes)
    # The scope is for mmpretrain's `get_model`, which has a MixMIM of its own.
    scope = dict(_scope_='mmmixmim')
    return scope | model | dict(data_preprocessor=preprocessor)


def _datasets(
    source: Source, chosen: Choices, no_data: str | None
) -> tuple[dict, dict]:
    """The datasets to train on and to hold out, with their pipelines."""
    dataset, held_out = source.prepare(no_data, chosen.held_out)
    crop = load_transform(
        source.scan,
        chosen,
        no_data,
        crop_ratio_range=(0.2, 1.0),
        flip_prob=0.5,
        ignore_empty=True,
    )
    middle = central_crop(source.scan, chosen, no_data) | dict(ignore_empty=True)
    packed = pack(weights=no_data is not None or source.has_weights)
    return (
        dataset | dict(pipeline=[crop, packed]),
        held_out | dict(pipeline=[middle, packed]),
    )


def _stream_epoch(scan: Scan, chosen: Choices) -> int | None:
    """Iterations of an epoch of shards; None for other data, which have a length."""
    if not scan.shards:
        return None
    left_out = scan.first_shard if chosen.held_out else 0
    return max(1, (scan.images - left_out) // chosen.batch_size)


def _sections(
    model: dict,
    datasets: tuple[dict, dict],
    chosen: Choices,
    per_epoch: int | None,
) -> list[Section]:
    """The sections of the config, but for those that all configs share.

    Args:
        model: The model.
        datasets: The images to train on and those held out.
        chosen: The settings.
        per_epoch: Iterations of an epoch of a stream; None for other data.
    """
    dataset, held_out = datasets
    wrapper = optimizer(chosen, (0.9, 0.95), paramwise_cfg=dict(flat_decay_mult=0.0))
    total = chosen.batch_size * chosen.accumulation
    scaling = dict(enable=False, base_batch_size=total)
    hooks = [dict(type='DiagnosisHook'), dict(type='ReportHook')]
    if chosen.held_out:
        hooks.insert(0, dict(type='ReconstructionHook'))
    return [
        Section('', dict(default_scope='mmmixmim')),
        Section(
            'The model. Decoder and head take their sizes from the backbone.',
            dict(model=model),
            ('model', 'image_size', 'patch_size', 'in_channels'),
        ),
        _data_section(dataset, chosen, per_epoch),
        *([_held_out_section(held_out, chosen)] if chosen.held_out else []),
        Section(
            'The optimizer. Biases and norms do not decay.',
            dict(optim_wrapper=wrapper, auto_scale_lr=scaling),
            ('lr', 'precision', 'accumulation'),
        ),
        _schedule_section(chosen, per_epoch),
        Section(
            'Pictures, verdicts and the report while it trains.',
            dict(custom_hooks=hooks),
        ),
    ]


def _data_section(dataset: dict, chosen: Choices, per_epoch: int | None) -> Section:
    limit = 'more than max_share of unreadable_images below'
    if per_epoch:
        limit = f'{UnreadableImages.MAX_IN_A_ROW} in a row'
    title = (
        'The data. Unreadable files are replaced by others and listed; the run stops '
        f'if they are {limit}.'
    )
    shuffle = None if per_epoch else True
    entries = dict(train_dataloader=loader(chosen, dataset, shuffle, drop_last=True))
    return Section(title, entries, ('batch_size', 'workers'))


def _held_out_section(dataset: dict, chosen: Choices) -> Section:
    half = dict(batch_size=max(1, chosen.batch_size // 2))
    entries = dict(
        val_dataloader=loader(chosen, dataset, drop_last=False) | half,
        val_cfg=dict(type='HeldOutLoop'),
        val_evaluator=[dict(type='ReconstructionLoss'), dict(type='FeatureHealth')],
    )
    title = 'The held-out images, in pairs, always with the same crops and masks.'
    return Section(title, entries, ('held_out', 'val_interval'))


def _schedule_section(chosen: Choices, per_epoch: int | None) -> Section:
    title = 'The schedule.'
    loop = dict(type='ResumableEpochLoop', max_epochs=chosen.epochs)
    time, unit = dict(convert_to_iter_based=True), 1
    if per_epoch:
        title += f' A stream counts iterations: {per_epoch} are an epoch.'
        loop = dict(type='IterBasedTrainLoop', max_iters=chosen.epochs * per_epoch)
        time, unit = dict(by_epoch=False), per_epoch
    if chosen.held_out:
        loop['val_interval'] = chosen.val_interval * unit
    schedule = dict(
        type='WarmupCosineLR',
        warmup=chosen.warmup * unit,
        end=chosen.epochs * unit,
        **time,
    )
    entries = dict(param_scheduler=[schedule], train_cfg=loop)
    return Section(title, entries, ('epochs', 'warmup'))


def _print_changes(run: Run) -> None:
    """Say if the folder of an interrupted run has more or fewer images than before."""
    try:
        dataset = load_config(run.config).train_dataloader.dataset
        root, listed = dataset.get('data_root'), dataset.get('ann_file')
        if not root:  # no folder
            return
        now = len(find_images(Path(root)))
    except UserError:  # training finds out, and says what to do
        return
    more = now - run.data['images'] - run.data['unreadable']
    if not more:
        return
    if more > 0:
        effect = f'not used, as {listed} decides' if listed else 'used, too'
    else:
        effect = 'counted as unreadable' if listed else 'left out from now on'
    if dataset.get('held_out') and not listed:
        effect += '; others may be held out now'
    count = f'{plural(abs(more), "image")} {"more" if more > 0 else "fewer"}'
    print(f'{root} has {count} than when the run began: {effect}.')


def _print_end(run: Run) -> None:
    print(f'\nEncoder         {run.checkpoint}')
    print(f'Reconstruction  {run.folder / "reconstruction.png"}')
    print(f'Report          {write_report(run.folder)}')
    data, no_data = run.arguments['data'], run.arguments['no_data']
    steps = with_labels(run.folder, data, run.folder, no_data)
    commands = [f'  {step.command}' for step in steps]
    own = ', yours for /data/labelled' if '/data/labelled' in commands[0] else ''
    print(f'\nNext, with a folder of images for each class{own}:', *commands, sep='\n')
