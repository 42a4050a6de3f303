"""What a run has left in its work_dir."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image

from mmmixmim.checkpoint.resumable import without_earlier
from mmmixmim.evaluation import Finding, History, diagnose, read_history
from mmmixmim.evaluation.curves import measured_mean_loss
from mmmixmim.evaluation.history import (
    judged_history,
    read_counts,
    rescaled,
    run_starts,
    start_config,
    start_time,
)
from mmmixmim.runtime.entries import config_entry, type_name
from mmmixmim.runtime.saved_config import read_config_text
from mmmixmim.validation import MissingFileError, UserError

# Pictures that commands leave in the work_dir.
_RESULTS = {'Confusions': 'confusion.png', 'Worst mistakes': 'mistakes.png'}


@dataclass(frozen=True)
class Picture:
    """A PNG file that the run's visualizer wrote.

    Args:
        name: Its name in the visualizer.
        step: Its step in the visualizer, counted as the last start of the run does.
        path: The file.
    """

    name: str
    step: int
    path: Path


@dataclass(frozen=True)
class RecordedRun:
    """A run, as far as its files tell.

    Args:
        folder: The work_dir.
        name: Name to show: the folder's.
        config: Entries of the config of the last start.
        config_text: The same as text.
        mean_loss: Loss of predicting the mean of each cell; None if it is unknown.
        mask_ratio: Share of an image that is hidden; None if it is unknown.
        load_from: Weights that the first start began with; None without.
        counts: What ``ReportHook`` has counted at the start: ``images``,
            ``held_out`` images, ``parameters``, ``processes`` and, with epochs,
            ``iters_per_epoch``; without the hook empty.
        history: Scalars by name, see
            :func:`~mmmixmim.evaluation.read_history`.
        findings: Verdicts, the most severe first.
        pictures: Pictures, ordered by name and step.
        results: Pictures that a command has drawn at the end, by title.
        checkpoints: Checkpoints, the oldest first.
        started: When each start began.
    """

    folder: Path
    name: str
    config: dict
    config_text: str
    mean_loss: float | None
    mask_ratio: float | None
    load_from: str | None
    counts: dict[str, int]
    history: History
    findings: list[Finding]
    pictures: list[Picture]
    results: dict[str, Path]
    checkpoints: list[Path]
    started: list[datetime]

    @property
    def iteration(self) -> int:
        """Last iteration that was logged."""
        return max(points[-1][0] for points in self.history.values())

    @property
    def iters_per_epoch(self) -> int | None:
        """Iterations per epoch; None without epochs, as in a loop by iterations.

        Without its count, from the logged iterations, of which the last ones of an
        epoch may be missing.
        """
        if config_entry(self.config, 'train_cfg.max_iters'):
            return None
        if count := self.counts.get('iters_per_epoch'):
            return count
        epochs = self.history.get('epoch', [])
        return max(
            (-(-at // int(epoch)) for at, epoch in epochs if epoch), default=None
        )


def read_run(folder: str | Path) -> RecordedRun:
    """Read a run.

    Args:
        folder: Its work_dir. The run may still go on.

    Raises:
        MissingFileError: If there is no such folder.
        UserError: If the folder holds no run, or a run without scalars.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingFileError(
            f'{folder} is no folder: give the work_dir of a run, which holds its '
            'config.py and checkpoints.'
        )
    starts = run_starts(folder)
    if not starts:
        raise UserError(_nothing_to_read(folder))
    texts = (starts[-1] / 'vis_data' / 'config.py', folder / 'config.py')
    text = next(
        (each.read_text('utf8', 'replace') for each in texts if each.is_file()), ''
    )
    config, first = read_config_text(text), start_config(starts[0])
    history = read_history(folder)
    mean_loss = measured_mean_loss(history, _mean_loss(config))
    mask_ratio = _mask_ratio(config)
    findings = diagnose(
        judged_history(starts[-1], history),
        mean_loss,
        mask_ratio,
        pretraining=pretrained_model(config) is not None,
    )
    if 'base_lr' in history:  # `lr` is that of the first group, which layers may lower
        history['lr'] = history['base_lr']
    return RecordedRun(
        folder=folder,
        name=folder.resolve().name,
        config=config,
        config_text=text,
        mean_loss=mean_loss,
        mask_ratio=mask_ratio,
        load_from=None if first.get('resume') else first.get('load_from'),
        counts=read_counts(starts[-1]),
        history=history,
        findings=findings,
        pictures=_pictures(starts),
        results={
            title: folder / name
            for title, name in _RESULTS.items()
            if _is_picture(folder / name)
        },
        checkpoints=sorted(
            without_earlier(folder, folder.glob('*.pth')),
            key=lambda path: path.stat().st_mtime,
        ),
        started=[time for start in starts if (time := start_time(start))],
    )


def _nothing_to_read(folder: Path) -> str:
    if any(folder.glob('*/vis_data')):
        return (
            f'{folder} has no scalars of a training (*/vis_data/scalars.json): the '
            'run stopped before its first log line, or vis_backends in its config '
            'lacks LocalVisBackend.'
        )
    inside = sorted(
        {path.parts[-4] for path in folder.glob('*/*/vis_data/scalars.json')}
    )
    hint = f' Did you mean {folder / inside[0]}?' if inside else ''
    return (
        f'{folder} holds no run: give the work_dir of a training, which holds folders '
        f'named after its starts, such as 20260131_120000.{hint}'
    )


def _pictures(starts: list[Path]) -> list[Picture]:
    """Pictures of all starts; a later start replaces those of the same step.

    Steps are counted as the last start does, see ``read_history``.
    """
    found = {}
    now = read_counts(starts[-1]).get('iters_per_epoch')
    for start in starts:
        before = read_counts(start).get('iters_per_epoch')
        for path in sorted((start / 'vis_data' / 'vis_image').glob('*.png')):
            match = re.fullmatch(r'(.+)_(\d+)', path.stem)
            if match and _is_picture(path):
                name, step = match[1], rescaled(int(match[2]), before, now)
                found[name, step] = Picture(name, step, path)
    return [found[key] for key in sorted(found)]


def _is_picture(path: Path) -> bool:
    """Whether a file is a complete PNG file; a run may be writing it, or be stopped."""
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=['PNG']) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def pretrained_model(config: dict) -> dict | None:
    """Config of the model, if it pretrains an encoder."""
    model = config.get('model')
    if not isinstance(model, dict) or type_name(model) != 'MixMIM':
        return None
    return model


def _mask_ratio(config: dict) -> float | None:
    model = pretrained_model(config)
    if model is None:
        return None
    ratio, images = model.get('mask_ratio'), model.get('num_images', 2)
    if ratio is None and isinstance(images, int):
        ratio = (images - 1) / images if images > 1 else None
    return ratio if isinstance(ratio, (int, float)) else None


def _mean_loss(config: dict) -> float | None:
    model = pretrained_model(config)
    head = None if model is None else model.get('head') or {}
    name = 'MixMIMPretrainHead'
    if not isinstance(head, dict) or type_name(head, name) != name:
        return None
    pixels = head.get('target', 'pixels') == 'pixels' and head.get('norm_pix', True)
    return 1.0 if pixels and not head.get('loss') else None
