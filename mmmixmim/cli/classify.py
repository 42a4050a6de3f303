"""Fine-tune an encoder on labelled images, or probe its frozen features."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.checkpoint import load_encoder
from mmmixmim.datasets import ChannelStatistics
from mmmixmim.datasets.labelled import Labelled, check_counts, find_labelled, split
from mmmixmim.datasets.scan import Scan, check_scan
from mmmixmim.engine.quiet_runner import quieten
from mmmixmim.evaluation import extract_features, find_mistakes
from mmmixmim.evaluation.linear_probe import fit_linear_classifier
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, plural
from mmmixmim.visualization import draw_confusion, draw_worst
from mmmixmim.visualization.report import beside

from .config_text import Section, config_text
from .data import (
    MEAN,
    STD,
    cached_scan,
    central_crop,
    check_no_data_fits,
    load_transform,
    measure,
    pack,
    print_scan,
    spread,
)
from .machine import this_machine
from .models import SIZES, encoder
from .report import print_report
from .run import Run, announce, goes_on, train
from .sections import optimizer, runtime_sections
from .settings import Choices, choose_classification, time_of_training
from .start import (
    checkpoint_of,
    known_settings,
    known_statistics,
    other_kind,
    pretrained,
)


def finetune(
    data: str | Path,
    out: str | Path = 'runs/finetune',
    *,
    start: str | Path | None = None,
    model: str | None = None,
    image_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    precision: str | None = None,
    workers: int | None = None,
    val_share: float = 0.2,
    no_data: str | float | None = None,
    seed: int = 0,
    dry_run: bool = False,
) -> Path:
    """Train a classifier on labelled images. Settings that are None are chosen.

    The folder of the run gets the config, the split, logs, checkpoints, the confusion
    matrix and the worst mistakes. The same call again goes on with an interrupted run.

    Args:
        data: A folder with a folder of images for each class, or with such folders
            below ``train`` and ``val``; or a CSV or Parquet file with the columns
            ``path`` and ``label`` and optionally ``part``.
        out: Folder of the run. Defaults to 'runs/finetune'.
        start: Run or checkpoint whose encoder the training starts from. Defaults to
            None: from scratch.
        model: As in :func:`mmmixmim.pretrain`, and so are the following ones.
        image_size: See there.
        batch_size: See there.
        epochs: See there.
        lr: See there.
        precision: See there.
        workers: See there.
        val_share: Share of each class for validation if the data have no split.
            Defaults to 0.2.
        no_data: Value of pixels without data, or 'nan'; they show the mean of their
            channel. Defaults to None: all are data.
        seed: Random seed, of the split too. Defaults to 0.
        dry_run: Whether to stop after printing the settings. Defaults to False.

    Returns:
        The folder of the run.

    Raises:
        KeyboardInterrupt: Upon Ctrl-C, once everything is saved.
        UserError: If the data, the machine or a setting cannot work.
    """
    run = Run.open('finetune', **locals())  # arguments only, so far
    data, out, no_data = _path(data), run.folder, run.arguments['no_data']
    if run.is_done(dry_run):
        if run.finished:
            print(f'See {out / "mistakes.json"} and {out / "report.html"}.')
        return out
    if not run.exists:
        known = known_settings(start)
        labelled, scan = _look(data, out, start, val_share, no_data, seed)
        count, machine = len(labelled.part('train')), this_machine()
        chosen, cost = choose_classification(count, scan, machine, known, **run.given)
        duration = time_of_training(chosen, count, cost, machine)
        if not announce(out, chosen, cost, duration, dry_run):
            return out
        model = _prepare(run, labelled, scan, chosen)
        if start:
            entry = pretrained(start, known, chosen.in_channels)
            model['backbone']['init_cfg'] = entry
        text = _config(data, out, labelled, scan, model, chosen, no_data, seed)
        run.begin(text, chosen, asdict(scan) | dict(classes=labelled.classes))
    print(f'\nTraining into {out}. Its config is {run.config}.', flush=True)
    with goes_on():
        runner = train(run)
    scores, labels, files = _predict(runner.model, runner.val_dataloader)
    _save_mistakes(run, scores, labels, files)
    run.finished = True
    run.save()
    print(f'Classifier      {run.checkpoint}')
    print_report(out)
    return out


def probe(
    data: str | Path,
    start: str | Path | None = None,
    out: str | Path = 'runs/probe',
    *,
    model: str | None = None,
    image_size: int | None = None,
    val_share: float = 0.2,
    no_data: str | float | None = None,
    seed: int = 0,
) -> dict:
    """Classify the frozen features of an encoder by logistic regression.

    Args:
        data: As in :func:`finetune`.
        start: Run or checkpoint of the encoder. Defaults to None: an untrained one,
            to compare with.
        out: Folder of the split, the confusion matrix and the worst mistakes.
        model: Model of an untrained encoder, as in :func:`mmmixmim.pretrain`.
        image_size: Side of the images in pixels.
        val_share: As in :func:`finetune`.
        no_data: As in :func:`finetune`.
        seed: As in :func:`finetune`.

    Returns:
        What :func:`mmmixmim.evaluation.find_mistakes` found.

    Raises:
        UserError: If the data or the encoder cannot work.
    """
    run = Run.open('probe', **locals())  # arguments only, so far
    data, out, no_data = _path(data), run.folder, run.arguments['no_data']
    known = known_settings(start)
    labelled, scan = _look(data, out, start, val_share, no_data, seed)
    machine = replace(this_machine(), cores=1)  # no loader processes for one pass
    count = len(labelled.part('train'))
    chosen, _ = choose_classification(count, scan, machine, known, **run.given)
    model = _prepare(run, labelled, scan, chosen)
    run.data = asdict(scan) | dict(classes=labelled.classes)
    init_default_scope('mmmixmim')
    quieten(MMLogger.get_current_instance())
    set_random_seed(seed)
    built = MODELS.build(model)
    if start:
        load_encoder(built.backbone, checkpoint_of(start), in_channels='mean')
    built.to(get_device())
    features = []
    pipeline = [central_crop(scan, chosen, no_data), pack()]
    on_gpu = torch.cuda.is_available()
    for part in ('train', 'val'):
        dataset = _dataset(out, part, labelled.classes, pipeline)
        loader = _loader(chosen, dataset, batch_size=64, pin_memory=on_gpu)
        features.append(extract_features(built, Runner.build_dataloader(loader)))
    train_features, (val_features, labels) = features
    classifier = fit_linear_classifier(*train_features)
    scores = np.zeros((len(labels), len(labelled.classes)), np.float32)
    scores[:, classifier.classes_] = classifier.predict_proba(val_features)
    files = [str(file) for file, _ in labelled.part('val')]
    found = _save_mistakes(run, scores, labels, files)
    if start:
        print(f'Compare with    {_untrained(run, chosen).invocation}')
    run.finished = True
    run.save()
    return found


def _untrained(run: Run, chosen: Choices) -> Run:
    """The probe of the same encoder at its initialisation."""
    changes = dict(start=None, model=chosen.model, image_size=chosen.image_size)
    folder = beside(run.folder, 'untrained')
    return replace(run, folder=folder, arguments=run.arguments | changes)


def _path(data: str | Path) -> Path:
    if not isinstance(data, (str, Path)):
        raise UserError(
            'data must be the path of a folder or a list, got a '
            f'{type(data).__name__}: labels are names of folders, or a column.'
        )
    return Path(data).expanduser()


def _look(
    data: Path,
    out: Path,
    start: str | Path | None,
    val_share: float,
    no_data: str | None,
    seed: int,
) -> tuple[Labelled, Scan]:
    """Find, scan, split and check the images."""
    labelled = find_labelled(data)
    scan = cached_scan(data, labelled.files, out / 'scan.json')
    print_scan(scan, 'labelled images')
    if scan.unreadable:
        raise UserError(
            f'{plural(scan.unreadable, "labelled file")} cannot be read, such as '
            f'{scan.examples["unreadable"][0]!r}: repair or remove them.'
        )
    other = other_kind(start, scan)
    if other:
        print(f'  mean and deviation of --from are not used: {other}')
    scan = replace(scan, as_arrays=known_statistics(start, scan) is not None)
    check_scan(scan, no_data)
    check_no_data_fits(scan, no_data)
    said = 'as the data say'
    if labelled.parts is None:
        labelled = split(labelled, val_share, seed)
        said = f'drawn from each class with seed {seed}'
    check_counts(labelled)
    count = {part: len(labelled.part(part)) for part in ('train', 'val')}
    print(
        f'  {len(labelled.classes)} classes; '
        f'{plural(count["train"], "image")} to train on and {count["val"]:,} to '
        f'validate, {said}'
    )
    return labelled, scan


def _prepare(run: Run, labelled: Labelled, scan: Scan, chosen: Choices) -> dict:
    """Write the split and the statistics of the channels; return the model."""
    run.folder.mkdir(parents=True, exist_ok=True)
    labelled.write(run.folder)
    classes = len(labelled.classes)
    preprocessor = dict(num_classes=classes, mean=MEAN, std=STD, to_rgb=True)
    if scan.is_raster:
        known = known_statistics(run.arguments['start'], scan)
        if known:
            known.save(run.folder / 'statistics.json')
            print('  mean and deviation of the channels are those of --from')
        else:
            files = [labelled.files[i] for i in spread(len(labelled.files))]
            measure(scan, files, run.folder, run.arguments['no_data'])
            known = ChannelStatistics.load(run.folder / 'statistics.json')
        preprocessor |= dict(mean=known.mean, std=known.std, to_rgb=False)
        preprocessor['type'] = 'RasterClsDataPreprocessor'
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    return dict(
        type='ImageClassifier',
        backbone=encoder(chosen.model, *sizes) | dict(drop_path_rate=0.1),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=classes,
            in_channels=SIZES[chosen.model].channels,
            loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        ),
        data_preprocessor=preprocessor,
    )


def _save_mistakes(
    run: Run, scores: np.ndarray, labels: np.ndarray, files: list
) -> dict:
    out = run.folder
    found = find_mistakes(scores, labels, files, run.data['classes'])
    (out / 'mistakes.json').write_text(json.dumps(found, indent=2) + '\n')
    draw_confusion(found, out / 'confusion.png')
    print(f'\nAccuracy        {found["top1"]} % of {found["images"]} validation images')
    print(f'Confusions      {out / "confusion.png"}')
    if found['worst']:
        no_data = run.arguments['no_data']
        draw_worst(found, out / 'mistakes.png', no_data=no_data)
        print(f'Worst mistakes  {out / "mistakes.png"}')
    return found


@torch.no_grad()
def _predict(
    model: nn.Module, loader: DataLoader
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    model.eval()
    scores, labels, files = [], [], []
    for batch in loader:
        for sample in model.test_step(batch):
            scores.append(sample.pred_score.float().cpu().numpy())
            labels.append(int(sample.gt_label))
            files.append(sample.img_path)
    return np.stack(scores), np.array(labels), files


def _dataset(out: Path, part: str, classes: list[str], pipeline: list) -> dict:
    return dict(
        type='CustomDataset',
        data_root='',
        ann_file=str(out.absolute() / f'{part}.txt'),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
    )


def _loader(chosen: Choices, dataset: dict, **changes) -> dict:
    loader = dict(
        batch_size=chosen.batch_size,
        num_workers=chosen.workers,
        persistent_workers=chosen.workers > 0,
        pin_memory=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=dataset,
    )
    return loader | changes


def _config(
    data: Path,
    out: Path,
    labelled: Labelled,
    scan: Scan,
    model: dict,
    chosen: Choices,
    no_data: str | None,
    seed: int,
) -> str:
    crop = load_transform(
        scan,
        chosen,
        no_data,
        crop_ratio_range=(0.4, 1.0),
        flip_prob=0.5,
        ignore_empty=True,
    )
    pipeline = [crop, pack()]
    test_pipeline = [central_crop(scan, chosen, no_data), pack()]
    train_set = _dataset(out, 'train', labelled.classes, pipeline)
    val_set = _dataset(out, 'val', labelled.classes, test_pipeline)
    shuffled = dict(type='DefaultSampler', shuffle=True)
    evaluator = dict(type='Accuracy', topk=1)
    val_loader = _loader(chosen, val_set)
    wrapper = optimizer(
        chosen,
        (0.9, 0.999),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=chosen.layer_decay),
    )
    schedule = dict(
        type='WarmupCosineLR',
        warmup=chosen.warmup,
        end=chosen.epochs,
        min_lr=1e-6,
        convert_to_iter_based=True,
    )
    sections = [
        Section('', dict(default_scope='mmmixmim')),
        Section(
            'The model: the encoder, its pooled last map, and a linear classifier.',
            dict(
                model=model,
                custom_hooks=[dict(type='ClassCheckHook'), dict(type='ReportHook')],
            ),
            ('model', 'image_size', 'patch_size', 'in_channels'),
        ),
        Section(
            'The data. train.txt and val.txt list paths and labels.',
            dict(
                train_dataloader=_loader(
                    chosen, train_set, drop_last=True, sampler=shuffled
                ),
                val_dataloader=val_loader,
                test_dataloader=val_loader,
                val_evaluator=evaluator,
                test_evaluator=evaluator,
            ),
            ('batch_size', 'workers'),
        ),
        Section(
            'The optimizer. Earlier layers learn more slowly.',
            dict(optim_wrapper=wrapper),
            ('lr', 'layer_decay', 'precision', 'accumulation'),
        ),
        Section(
            'The schedule.',
            dict(
                param_scheduler=[schedule],
                train_cfg=dict(
                    type='ResumableEpochLoop',
                    max_epochs=chosen.epochs,
                    val_interval=max(1, chosen.epochs // 20),
                ),
                val_cfg=dict(),
                test_cfg=dict(),
            ),
            ('epochs', 'warmup'),
        ),
        *runtime_sections(chosen, seed),
    ]
    docstring = (
        f'Classification of {data} in {len(labelled.classes)} classes.\n\n'
        'Written by `python -m mmmixmim`. To train it again elsewhere:\n'
        'mim train mmmixmim config.py --work-dir FOLDER'
    )
    return config_text(docstring, sections, chosen)
