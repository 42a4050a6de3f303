"""Probe the frozen features of an encoder on labelled images."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmmixmim.checkpoint import load_encoder
from mmmixmim.evaluation import extract_features
from mmmixmim.evaluation.linear_probe import fit_linear_classifier
from mmmixmim.evaluation.mistakes import check_finite
from mmmixmim.log import quieten
from mmmixmim.registry import MODELS
from mmmixmim.runtime import naming_full_memory, training_device
from mmmixmim.visualization.report import beside

from .data import central_crop, loader, pack, start_method
from .labelled import data_path, labelled_dataset, look, prepare, save_mistakes
from .machine import this_machine
from .models import largest_patch
from .run import Run
from .settings import Choices, choose_classification
from .weights import checkpoint_of, describe_weights, known_settings


@naming_full_memory()
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
        data: As in :func:`mmmixmim.finetune`.
        start: Run or checkpoint of the encoder. Defaults to None: an untrained one,
            to compare with.
        out: Folder of the split, the confusion matrix and the worst mistakes.
        model: Model of an untrained encoder, as in :func:`mmmixmim.pretrain`.
        image_size: Side of the images in pixels.
        val_share: As in :func:`mmmixmim.finetune`.
        no_data: As in :func:`mmmixmim.finetune`.
        seed: As in :func:`mmmixmim.finetune`.

    Returns:
        What :func:`mmmixmim.evaluation.find_mistakes` found.

    Raises:
        UserError: If the data or the encoder cannot work.
    """
    arguments = dict(locals())  # first of all: no other name is bound yet
    run = Run.open('probe', **arguments)
    data = data_path(data)
    with run.locked():
        return _probe(run, data)


def _probe(run: Run, data: Path) -> dict:
    out, no_data = run.folder, run.arguments['no_data']
    start = run.arguments['start']
    if run.exists:
        print(f'{out} holds this probe: its result is computed again and replaced.')
    known = known_settings(start)
    labelled, scan = look(run, data)
    machine = this_machine()
    if not machine.on_gpu:  # one pass is not worth loader processes, which share cores
        machine = replace(machine, cores=1)
    count = len(labelled.part('train'))
    chosen, _ = choose_classification(count, scan, machine, known, **run.given)
    weights = f'from {describe_weights(start)}' if start else 'untrained'
    print(f'Encoder: {chosen.model}, {chosen.image_size} pixels, {weights}', flush=True)
    model = prepare(run, labelled, scan, chosen)
    run.data = asdict(scan) | dict(classes=labelled.classes)
    init_default_scope('mmmixmim')
    quieten(MMLogger.get_current_instance())
    set_random_seed(run.arguments['seed'])
    built = MODELS.build(model)
    if start:
        load_encoder(built.backbone, checkpoint_of(start), in_channels='mean')
    else:
        built.init_weights()  # stock encoders draw their weights here
    built.to(training_device())
    features = []
    pipeline = [central_crop(scan, chosen, no_data), pack()]
    on_gpu = torch.cuda.is_available()
    for part in ('train', 'val'):
        dataset = labelled_dataset(out, part, labelled.classes, pipeline)
        config = loader(chosen, dataset) | dict(batch_size=64, pin_memory=on_gpu)
        config['multiprocessing_context'] = start_method(chosen.workers)
        found = extract_features(built, Runner.build_dataloader(config))
        check_finite(found[0], [file for file, _ in labelled.part(part)])
        features.append(found)
    train_features, (val_features, labels) = features
    classifier = fit_linear_classifier(*train_features)
    scores = np.zeros((len(labels), len(labelled.classes)), np.float32)
    scores[:, classifier.classes_] = classifier.predict_proba(val_features)
    files = [str(file) for file, _ in labelled.part('val')]
    found = save_mistakes(run, scores, labels, files)
    if start:
        print(f'Compare with    {_comparison(run, chosen)}')
    run.finished = True
    run.save()
    return found


def _comparison(run: Run, chosen: Choices) -> str:
    """The command that probes the same encoder at its initialisation."""
    if largest_patch(chosen.model, chosen.image_size) != chosen.patch_size:
        return (
            'a probe without --image-size: untrained, the model has other patches at '
            f'{chosen.image_size} pixels'
        )
    changes = dict(start=None, model=chosen.model, image_size=chosen.image_size)
    folder = beside(run.folder, 'untrained')
    untrained = replace(run, folder=folder, arguments=run.arguments | changes)
    return untrained.invocation
