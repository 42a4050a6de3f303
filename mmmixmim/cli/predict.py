"""Classify images with a fine-tuned classifier."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmmixmim.checkpoint import load_whole
from mmmixmim.datasets.image_files import Skipped
from mmmixmim.datasets.scan import readable_header
from mmmixmim.datasets.subsets import evenly_spaced
from mmmixmim.datasets.tables import LISTS
from mmmixmim.registry import MODELS
from mmmixmim.runtime import load_config, naming_full_memory, training_device
from mmmixmim.runtime.entries import config_entry
from mmmixmim.runtime.files import check_out, created, replacing
from mmmixmim.text import printable
from mmmixmim.validation import (
    MissingFileError,
    UnreadableFileError,
    UserError,
    check_positive_int,
)

from .data import list_images, progress, start_method
from .run import Run, as_path

_SHOWN = 20  # classes and unreadable files that are printed
_COMPARED = 20  # readable images whose bits are compared
_OVERFLOW = 'its scores are not finite: its values are far from those of the training'


@naming_full_memory('choose a smaller --batch-size')
def predict(
    images: str | Path | Iterable[str | Path],
    start: str | Path,
    out: str | Path | None = None,
    *,
    batch_size: int | None = None,
) -> Path:
    """Classify images with a run of :func:`mmmixmim.finetune`.

    They are loaded and normalised as the validation images of the run.

    Args:
        images: A folder of images, nested or flat; a list of paths, as for
            :func:`mmmixmim.pretrain`; an image; or several of these.
        start: The run, of which the last checkpoint is used, or a checkpoint in its
            folder.
        out: CSV file with a row for each image: its path, class, the score of the
            class, and the scores of all classes. Defaults to None: ``predictions.csv``
            in the folder of the run.
        batch_size: Images per batch. Defaults to None: as the run has validated.

    Returns:
        The file. Images that cannot be read, or whose scores are not finite, have an
        empty class in it.

    Raises:
        UserError: If there are no images, no classifier, or the file exists.
    """
    if batch_size is not None:
        check_positive_int('batch_size', batch_size)
    cfg, checkpoint, folder = _find_classifier(start)
    file = folder / 'predictions.csv' if out is None else as_path('--out', out)
    check_out(file, 'a .csv file', ('.csv',))
    if file.exists():
        raise UserError(
            f'{str(file)!r} exists: remove it, or choose another file by --out.'
        )
    skipped = Skipped()
    files = _find_files(images, skipped)
    classes = list(cfg.val_dataloader.dataset.metainfo.classes)
    print(f'Classifier   {checkpoint}, {len(classes)} classes')
    print(f'Images       {len(files):,}', flush=True)
    if skipped.endings:
        print(f'Skipped      {skipped}')
    _compare_bits(cfg, folder, files)
    init_default_scope('mmmixmim')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    load_whole(model, checkpoint)
    model.to(training_device()).eval()
    loader = _loader(files, cfg.val_dataloader, batch_size)
    counts, unreadable = _write(
        file, files, classes, _classify(model, loader), given=out is not None
    )
    for name, count in counts.most_common(_SHOWN):
        print(f'  {printable(name)}: {count:,}')
    if len(counts) > _SHOWN:
        print(f'  and {len(counts) - _SHOWN:,} more classes')
    if unreadable:
        print(f'Unreadable   {len(unreadable):,}, without a class in the file')
    for image, reason in unreadable[:_SHOWN]:
        print(f'  {printable(str(image))}: {printable(reason)}')
    print(f'Predictions  {file}')
    return file


def _find_classifier(start: str | Path) -> tuple[Config, Path, Path]:
    """Config and checkpoint of a classifier, and their folder."""
    path = as_path('--from', start)
    folder = path if path.is_dir() else path.parent
    config = folder / 'config.py'
    if not path.exists():
        raise MissingFileError(f'--from {str(start)!r} does not exist: check the path.')
    if not config.is_file():
        raise MissingFileError(
            f'--from {str(start)!r} is no classifier: there is no {str(config)!r}. '
            'Name the folder of a run of `mixmim finetune`, or a checkpoint in it.'
        )
    cfg = load_config(config)
    if not config_entry(cfg, 'val_dataloader.dataset.metainfo.classes'):
        if 'num_classes' in (config_entry(cfg, 'model.head') or {}):
            raise UserError(
                f'--from {str(start)!r} does not name its classes: add their names, in '
                f'the order of the training, to {str(config)!r}, as '
                "val_dataloader['dataset']['metainfo'] = dict(classes=[...])."
            )
        raise UserError(
            f'--from {str(start)!r} knows no classes, as a pretraining: train a '
            f'classifier by `mixmim finetune DATA --from {start} --out RUN`, and say '
            '--from RUN.'
        )
    # Not Run.load: what `mim train` has trained by such a config has no run.json.
    checkpoint = Run(folder, 'finetune', {}).checkpoint if path.is_dir() else path
    return cfg, checkpoint, folder


def _find_files(images: Iterable[str | Path], skipped: Skipped) -> list[Path]:
    if isinstance(images, (str, os.PathLike)) or not isinstance(images, Iterable):
        images = [images]
    files = []
    for each in images:
        if not isinstance(each, (str, os.PathLike)):
            raise UserError(
                'predict takes paths of images, folders and lists, got a '
                f'{type(each).__name__}: save the images as files, and name these.'
            )
        path = Path(each).expanduser()
        if not path.exists():
            raise MissingFileError(
                f'There is no image, folder or list {str(path)!r}: check the path.'
            )
        if path.is_file() and path.suffix.lower() not in LISTS:
            files.append(path)
        else:
            files += list_images(path, skipped)[0]
    if not files:
        raise UserError('There are no images to classify: name some.')
    return files


def _compare_bits(cfg: Config, folder: Path, files: list[Path]) -> None:
    """Warn if some of the images have other bits than those of the training."""
    if not (folder / 'run.json').is_file():
        return
    spread = [files[i] for i in evenly_spaced(len(files), _COMPARED)]
    others = dict.fromkeys([*spread, *files])  # in place of unreadable ones
    headers = filter(None, map(readable_header, islice(others, 10 * _COMPARED)))
    found = {max(8, each.bits) for each in islice(headers, _COMPARED)}
    trained = {max(8, int(bits)) for bits in Run.load(folder).data['bits']}
    odd = found - trained
    if odd:
        here, there = (', '.join(map(str, sorted(each))) for each in (odd, trained))
        kind = cfg.model.data_preprocessor.get('type')
        effect = (
            'Values of another scale get wrong classes.'
            if kind == 'RasterClsDataPreprocessor'
            else 'This run reads pictures of 8 bits: of 16 bits it takes the upper 8, '
            'and it cannot read most others.'
        )
        print(
            f'  Careful: some have {here} bits, those of the training {there}. {effect}'
        )


class _Images(Dataset):
    """Images as the run has validated; of those that cannot be read, the reason."""

    def __init__(self, files: list[Path], pipeline: list[dict]) -> None:
        self.files, self.pipeline = files, Compose(pipeline)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict | str:
        try:
            return self.pipeline(dict(img_path=str(self.files[index])))
        except UnreadableFileError as error:
            # Some causes name the image, which is printed beside them.
            return str(error.__cause__ or error).rpartition(' cannot be read: ')[2]


def _loader(files: list[Path], like: Config, batch_size: int | None) -> DataLoader:
    batch_size = batch_size or like.batch_size
    workers = like.num_workers if len(files) > batch_size else 0
    return DataLoader(
        _Images(files, like.dataset.pipeline),
        batch_size,
        num_workers=workers,
        collate_fn=_collate,
        multiprocessing_context=start_method(workers),
    )


def _collate(items: list[dict | str]) -> tuple[list[str | None], dict | None]:
    """Why each image cannot be read, None if it can; and the batch of the others."""
    reasons = [each if isinstance(each, str) else None for each in items]
    read = [each for each in items if not isinstance(each, str)]
    return reasons, default_collate(read) if read else None


@torch.no_grad()
def _classify(model: nn.Module, loader: DataLoader) -> Iterator[np.ndarray | str]:
    """Yield the score of each class, or why the image cannot be read."""
    for reasons, batch in loader:
        samples = iter(model.test_step(batch) if batch else ())
        for reason in reasons:
            if reason is None:
                scores = next(samples).pred_score.float().cpu().numpy()
                yield scores if np.isfinite(scores).all() else _OVERFLOW
            else:
                yield reason


def _write(
    out: Path,
    files: list[Path],
    classes: list[str],
    found: Iterator[np.ndarray | str],
    given: bool,
) -> tuple[Counter, list[tuple[Path, str]]]:
    """Write the predictions; count the classes, and list what cannot be read, and why.

    Raises:
        UserError: If no image can be read.
    """
    counts, unreadable = Counter(), []
    with (
        created(out.parent),
        replacing(out, given) as part,
        part.open('w', encoding='utf-8', errors='surrogateescape', newline='') as text,
        progress(len(files), 'Classifying') as advance,
    ):
        rows = csv.writer(text)
        rows.writerow(['path', 'class', 'score', *(f'score_{x}' for x in classes)])
        for file, scores in zip(files, found, strict=True):
            advance()
            # Spreadsheet programs run what begins like a formula.
            name = f'./{file}' if str(file)[0] in '=+-@' else file
            if isinstance(scores, str):
                unreadable.append((file, scores))
                rows.writerow([name, *[''] * (2 + len(classes))])
                continue
            best = int(scores.argmax())
            counts[classes[best]] += 1
            numbers = (f'{score:.6g}' for score in (scores[best], *scores))
            rows.writerow([name, classes[best], *numbers])
        if not counts:
            file, reason = unreadable[0]
            raise UserError(
                f'None of the images ({len(files):,}) can be read. The first, '
                f'{str(file)!r}: {reason}'
            )
    return counts, unreadable
