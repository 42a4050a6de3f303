"""Fine-tune an encoder on labelled images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from mmmixmim.datasets.scan import Scan
from mmmixmim.visualization import write_report
from mmmixmim.visualization.report import with_images

from .config_writer import Section, config_text
from .data import central_crop, load_transform, loader, pack
from .labelled import data_path, labelled_dataset, look, prepare, save_mistakes
from .machine import this_machine
from .run import Run
from .sections import optimizer, runtime_sections
from .settings import Choices, choose_classification, time_of_training
from .training import announce, goes_on, train
from .weights import describe_weights, known_settings, pretrained


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
    matrix and the worst mistakes. The same call again resumes an interrupted run.

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
    arguments = dict(locals())  # first of all: no other name is bound yet
    run = Run.open('finetune', **arguments)
    data, out = data_path(data), run.folder
    if run.is_done(dry_run):
        if run.finished:
            print(f'See {out / "mistakes.json"} and {out / "report.html"}.')
        return out
    with run.locked():
        if not run.exists and not _prepare(run, data, dry_run):
            return out
        with goes_on():
            runner = train(run)
            scores, labels, files = _predict(runner.model, runner.val_dataloader)
        save_mistakes(run, scores, labels, files)
        run.finished = True
        run.save()
    print(f'Classifier      {run.checkpoint}')
    print(f'Report          {write_report(out)}')
    print(f'\nNext, with a folder of new images:\n  {with_images(out).command}')
    return out


def _prepare(run: Run, data: Path, dry_run: bool) -> bool:
    """Look at the images, choose the settings and begin the run.

    Returns:
        Whether it was begun.
    """
    start = run.arguments['start']
    known = known_settings(start)
    labelled, scan = look(run, data)
    if start:
        print(f'Encoder: {describe_weights(start)}')
    count, machine = len(labelled.part('train')), this_machine()
    chosen, cost = choose_classification(count, scan, machine, known, **run.given)
    duration = time_of_training(chosen, count, cost, machine)
    if not announce(run.folder, chosen, cost, duration, dry_run):
        return False
    model = prepare(run, labelled, scan, chosen)
    if start:
        entry = pretrained(start, known, chosen.in_channels)
        model['backbone']['init_cfg'] = entry
    classes = labelled.classes
    datasets = _datasets(run, classes, scan, chosen)
    sections = _sections(model, datasets, chosen)
    sections += runtime_sections(chosen, run.arguments['seed'])
    docstring = (
        f'Classification of {data} in {len(classes)} classes.\n\n'
        'Written by `python -m mmmixmim`. To train it again elsewhere:\n'
        'mim train mmmixmim config.py --work-dir FOLDER'
    )
    text = config_text(docstring, sections, chosen)
    run.begin(text, chosen, asdict(scan) | dict(classes=classes))
    return True


@torch.no_grad()
def _predict(
    model: nn.Module, batches: DataLoader
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    model.eval()
    scores, labels, files = [], [], []
    for batch in batches:
        for sample in model.test_step(batch):
            scores.append(sample.pred_score.float().cpu().numpy())
            labels.append(int(sample.gt_label))
            files.append(sample.img_path)
    return np.stack(scores), np.array(labels), files


def _datasets(
    run: Run, classes: list[str], scan: Scan, chosen: Choices
) -> tuple[dict, dict]:
    """The datasets for training and validation."""
    no_data = run.arguments['no_data']
    crop = load_transform(
        scan,
        chosen,
        no_data,
        crop_ratio_range=(0.4, 1.0),
        flip_prob=0.5,
        ignore_empty=True,
    )
    middle = central_crop(scan, chosen, no_data)
    return (
        labelled_dataset(run.folder, 'train', classes, [crop, pack()]),
        labelled_dataset(run.folder, 'val', classes, [middle, pack()]),
    )


def _sections(
    model: dict, datasets: tuple[dict, dict], chosen: Choices
) -> list[Section]:
    wrapper = optimizer(
        chosen,
        (0.9, 0.999),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=chosen.layer_decay),
    )
    return [
        Section('', dict(default_scope='mmmixmim')),
        Section(
            'The model: the encoder, its pooled last map, and a linear classifier.',
            dict(
                model=model,
                custom_hooks=[dict(type='ClassCheckHook'), dict(type='ReportHook')],
            ),
            ('model', 'image_size', 'patch_size', 'in_channels'),
        ),
        _data_section(datasets, chosen),
        Section(
            'The optimizer. Earlier layers learn more slowly.',
            dict(optim_wrapper=wrapper),
            ('lr', 'layer_decay', 'precision', 'accumulation'),
        ),
        _schedule_section(chosen),
    ]


def _data_section(datasets: tuple[dict, dict], chosen: Choices) -> Section:
    train_set, val_set = datasets
    val_loader = loader(chosen, val_set)
    evaluator = dict(type='Accuracy', topk=1)
    entries = dict(
        train_dataloader=loader(chosen, train_set, shuffle=True) | dict(drop_last=True),
        val_dataloader=val_loader,
        test_dataloader=val_loader,
        val_evaluator=evaluator,
        test_evaluator=evaluator,
    )
    title = 'The data. train.txt and val.txt list paths and labels.'
    return Section(title, entries, ('batch_size', 'workers'))


def _schedule_section(chosen: Choices) -> Section:
    schedule = dict(
        type='WarmupCosineLR',
        warmup=chosen.warmup,
        end=chosen.epochs,
        min_lr=1e-6,
        convert_to_iter_based=True,
    )
    loop = dict(
        type='ResumableEpochLoop',
        max_epochs=chosen.epochs,
        val_interval=max(1, chosen.epochs // 20),
    )
    entries = dict(
        param_scheduler=[schedule], train_cfg=loop, val_cfg=dict(), test_cfg=dict()
    )
    return Section('The schedule.', entries, ('epochs', 'warmup'))
