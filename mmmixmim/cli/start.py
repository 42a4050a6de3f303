"""Weights to start from: a run, or a checkpoint of any format."""

from __future__ import annotations

from pathlib import Path

from mmmixmim.checkpoint import encoder_weights, read_weights
from mmmixmim.datasets import ChannelStatistics
from mmmixmim.datasets.scan import Scan
from mmmixmim.validation import MissingFileError, UserError

from .models import model_of_weights
from .run import Run


def known_settings(start: str | Path | None) -> dict | None:
    """Settings that follow from the weights to start from.

    Raises:
        UserError: If there are no such weights.
    """
    if start is None:
        return None
    checkpoint = checkpoint_of(start)
    folder = checkpoint.parent
    if checkpoint.is_file() and (folder / 'run.json').is_file():
        settings = Run.load(folder).settings
        names = ('model', 'image_size', 'patch_size', 'in_channels')
        return {name: settings[name] for name in names}
    try:
        return model_of_weights(encoder_weights(read_weights(checkpoint)))
    except MissingFileError:
        raise
    except UserError as error:
        raise UserError(
            f'--from {str(start)!r}: {error} Of encoders other than ours only the '
            'folder of a run of this command tells the model; train others by '
            'tools/train.py.'
        ) from error


def known_statistics(start: str | Path | None, scan: Scan) -> ChannelStatistics | None:
    """Mean and deviation that a run measured on images of the same kind.

    Args:
        start: The run or its checkpoint; None for none.
        scan: The images, whose number of channels and bits must agree.
    """
    file = _statistics_file(start)
    if file is None or other_kind(start, scan):
        return None
    return ChannelStatistics.load(file)


def other_kind(start: str | Path | None, scan: Scan) -> str:
    """Say how the images of a run with statistics differ in kind; '' if they do not."""
    file = _statistics_file(start)
    if file is None:
        return ''
    data = Run.load(file.parent).data
    for name in ('channels', 'bits'):
        there, here = sorted(map(int, data[name])), sorted(getattr(scan, name))
        if there != here:
            there, here = (', '.join(map(str, each)) for each in (there, here))
            return f'its images have {there} {name}, these {here}'
    return ''


def _statistics_file(start: str | Path | None) -> Path | None:
    if start is None:
        return None
    folder = checkpoint_of(start).parent
    file = folder / 'statistics.json'
    return file if file.is_file() and (folder / 'run.json').is_file() else None


def pretrained(start: str | Path, known: dict, in_channels: int) -> dict:
    """``init_cfg`` of a backbone that starts from these weights."""
    entry = dict(type='Pretrained', checkpoint=str(checkpoint_of(start).absolute()))
    entry['prefix'] = 'backbone.'
    if known['in_channels'] != in_channels:
        entry['in_channels'] = 'mean'
    return entry


def checkpoint_of(start: str | Path) -> Path:
    """The checkpoint that a run or a file stands for."""
    path = Path(start).expanduser()
    return Run.load(path).checkpoint if path.is_dir() else path
