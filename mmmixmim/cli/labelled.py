"""What `finetune` and `probe` share: labelled images, the model, the mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmmixmim.datasets import ChannelStatistics
from mmmixmim.datasets.image_files import Skipped
from mmmixmim.datasets.labelled import Labelled, check_counts, find_labelled, split
from mmmixmim.datasets.scan import Scan, check_scan
from mmmixmim.datasets.subsets import evenly_spaced
from mmmixmim.evaluation import find_mistakes
from mmmixmim.runtime import write_json
from mmmixmim.text import plural, printable
from mmmixmim.validation import UserError
from mmmixmim.visualization import draw_confusion, draw_worst

from .data import MEAN, MEASURED, STD, cached_scan, measure, print_scan
from .models import SIZES, encoder
from .run import Run
from .settings import Choices
from .weights import known_statistics, warn_of_no_data

_SHOWN = 10  # classes whose images are counted
_NAMED = 3  # unreadable files that an error names


def data_path(data: str | Path) -> Path:
    """The path of the labelled images.

    Raises:
        UserError: If the data are no path.
    """
    if not isinstance(data, (str, Path)):
        raise UserError(
            'data must be the path of a folder or a list, got a '
            f'{type(data).__name__}: labels are names of folders, or a column.'
        )
    return Path(data).expanduser()


def look(run: Run, data: Path) -> tuple[Labelled, Scan]:
    """Find, scan, split and check the images, and print what they are.

    Raises:
        UserError: If they cannot be trained on.
    """
    start, no_data = run.arguments['start'], run.arguments['no_data']
    skipped = Skipped()
    labelled = find_labelled(data, skipped)
    cache = run.folder / 'scan.json'
    scan = cached_scan(data, labelled.files, cache)
    if scan.unreadable:
        named = scan.examples['unreadable'][:_NAMED]
        listed, more = ', '.join(map(repr, named)), scan.unreadable - len(named)
        if more:
            listed += f' and {more:,} more, see {str(cache)!r}'
        raise UserError(
            f'{scan.unreadable:,} of {plural(len(labelled.files), "labelled file")} '
            f'cannot be read: {listed}. Repair or remove them. {scan.reason}'
        )
    print_scan(scan, 'labelled images', skipped)
    known, difference = known_statistics(start, scan)
    if difference:
        print(f'  mean and standard deviation of --from are not used: {difference}')
    scan = replace(scan, as_arrays=known is not None)
    check_scan(scan, no_data)
    warn_of_no_data(start, scan, no_data)
    said = 'as the data say'
    if labelled.parts is None:
        seed = run.arguments['seed']
        labelled = split(labelled, run.arguments['val_share'], seed)
        said = f'drawn from each class with seed {seed}'
    check_counts(labelled)
    count = {part: len(labelled.part(part)) for part in ('train', 'val')}
    print(
        f'  {len(labelled.classes)} classes; '
        f'{plural(count["train"], "image")} to train on and {count["val"]:,} to '
        f'validate, {said}'
    )
    print(f'  images per class{_per_class(labelled)}')
    return labelled, scan


def _per_class(labelled: Labelled) -> str:
    """Number of images of each class, or of the first ones if there are many."""
    counts, classes = Counter(labelled.labels), labelled.classes
    text = ', '.join(
        f'{printable(name)} ({counts[number]:,})'
        for number, name in enumerate(classes[:_SHOWN])
    )
    if len(classes) <= _SHOWN:
        return f': {text}'
    low, high = min(counts.values()), max(counts.values())
    return f', {low:,} to {high:,}: {text} and {len(classes) - _SHOWN:,} more'


def prepare(run: Run, labelled: Labelled, scan: Scan, chosen: Choices) -> dict:
    """Write the split and the statistics of the channels; return the model."""
    labelled.write(run.folder)
    classes = len(labelled.classes)
    preprocessor = dict(num_classes=classes, mean=MEAN, std=STD, to_rgb=True)
    if scan.is_raster:
        known = _statistics(run, labelled, scan)
        preprocessor |= dict(mean=known.mean, std=known.std, to_rgb=False)
        preprocessor['type'] = 'RasterClsDataPreprocessor'
    sizes = (chosen.image_size, chosen.patch_size, chosen.in_channels)
    return dict(
        _scope_='mmmixmim',  # for mmpretrain's `get_model`
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


def _statistics(run: Run, labelled: Labelled, scan: Scan) -> ChannelStatistics:
    """Mean and deviation of the run to start from, or of the images to train on."""
    file = run.folder / 'statistics.json'
    known, _ = known_statistics(run.arguments['start'], scan)
    if known:
        known.save(file, given=False)
        print('  mean and standard deviation of the channels are those of --from')
        return known
    train = labelled.part('train')
    files = [train[i][0] for i in evenly_spaced(len(train), MEASURED)]
    measure(scan, files, run.folder, run.arguments['no_data'])
    return ChannelStatistics.load(file)


def labelled_dataset(out: Path, part: str, classes: list[str], pipeline: list) -> dict:
    """Dataset of a config: the images that ``prepare`` has listed for this part."""
    return dict(
        type='CustomDataset',
        data_root='',
        ann_file=str(out.absolute() / f'{part}.txt'),
        metainfo=dict(classes=classes),
        pipeline=pipeline,
    )


def save_mistakes(
    run: Run, scores: np.ndarray, labels: np.ndarray, files: list
) -> dict:
    """Save and print how well the validation images are classified.

    Args:
        run: The run.
        scores: Score of each class, for each image.
        labels: Label of each image.
        files: File of each image.

    Returns:
        What :func:`mmmixmim.evaluation.find_mistakes` found.
    """
    out = run.folder
    found = find_mistakes(scores, labels, files, run.data['classes'])
    write_json(out / 'mistakes.json', found)
    for name in ('confusion.png', 'mistakes.png'):  # of an earlier probe, or links
        (out / name).unlink(missing_ok=True)
    draw_confusion(found, out / 'confusion.png')
    low, high = found['top1_interval']
    print(
        f'\nAccuracy        {found["top1"]} % of {found["images"]:,} validation images '
        f'(95 % interval {low} to {high} %; always answering the most frequent class '
        f'gives {found["chance"]} %)'
    )
    print(f'Confusions      {out / "confusion.png"}')
    if found['worst']:
        no_data = run.arguments['no_data']
        draw_worst(found, out / 'mistakes.png', no_data=no_data)
        print(f'Worst mistakes  {out / "mistakes.png"}')
    return found
