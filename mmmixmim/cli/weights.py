"""Weights to start from: a run, or a checkpoint of any format."""

from __future__ import annotations

from pathlib import Path

from mmmixmim.checkpoint import read_checkpoint, read_weights, split_encoder
from mmmixmim.datasets import ChannelStatistics
from mmmixmim.datasets.scan import Scan
from mmmixmim.runtime.entries import config_entry
from mmmixmim.validation import MissingFileError, UserError

from .models import model_of_weights
from .run import Run

_STATISTICS = 'statistics.json'


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
        if settings.keys() >= set(names):
            return {name: settings[name] for name in names}
    try:
        weights, _ = split_encoder(read_weights(checkpoint))
        return model_of_weights(weights)
    except MissingFileError:
        raise
    except UserError as error:
        raise UserError(
            f'--from {str(start)!r}: {error} Of encoders other than ours only the '
            'folder of a run of this command tells the model; train and probe others '
            'by tools/train.py and tools/linear_probe.py.'
        ) from error


def known_statistics(
    start: str | Path | None, scan: Scan
) -> tuple[ChannelStatistics | None, str]:
    """Mean and deviation that a run measured on images of the same kind.

    Args:
        start: The run or its checkpoint; None for none.
        scan: The images, whose number of channels and bits must agree.

    Returns:
        Mean and deviation, None if there are none. And how the images of the run differ
        in kind, so that its statistics are of no use; '' if they do not.
    """
    run = _run_with_statistics(start)
    if run is None:
        return None, ''
    for name in ('channels', 'bits'):
        there, here = sorted(map(int, run.data[name])), sorted(getattr(scan, name))
        if there != here:
            there, here = (', '.join(map(str, each)) for each in (there, here))
            return None, f'its images have {there} {name}, these {here}'
    return ChannelStatistics.load(run.folder / _STATISTICS), ''


def warn_of_no_data(start: str | Path | None, scan: Scan, no_data: str | None) -> None:
    """Print if the run to start from took other pixels for those without data.

    Args:
        start: The run or its checkpoint; None for none.
        scan: The images.
        no_data: Value of their pixels without data; None for none.
    """
    run = _run_with_statistics(start) if scan.is_raster else None
    there = run and run.arguments['no_data']
    if run and there != no_data:
        print(
            f'  Careful: --from was trained with no_data={there}, this run with '
            f'{no_data}: pixels without data for the one count as values for the other.'
        )


def _run_with_statistics(start: str | Path | None) -> Run | None:
    """The run to start from, if it has measured channels, as runs on rasters do."""
    if start is None:
        return None
    folder = checkpoint_of(start).parent
    names = ('run.json', _STATISTICS)
    return Run.load(folder) if all((folder / x).is_file() for x in names) else None


def pretrained(start: str | Path, known: dict, in_channels: int) -> dict:
    """``init_cfg`` of a backbone that starts from these weights."""
    entry = dict(type='Pretrained', checkpoint=str(checkpoint_of(start).absolute()))
    entry['prefix'] = 'backbone.'
    if known['in_channels'] != in_channels:
        entry['in_channels'] = 'mean'
    return entry


def describe_weights(start: str | Path) -> str:
    """The checkpoint to start from, and how long it was trained if the file tells."""
    checkpoint = checkpoint_of(start)
    _, extras = read_checkpoint(checkpoint)
    # An epoch that has not ended, and a loop without epochs, count 0 of them.
    for unit, key in (('epochs', 'epoch'), ('iterations', 'iter')):
        done = config_entry(extras, f'meta.{key}')
        planned = config_entry(extras, f'message_hub.runtime_info.max_{key}s')
        if all(isinstance(each, int) and each > 0 for each in (done, planned)):
            rest = ' (unfinished)' if done < planned else ''
            return f'{checkpoint}, after {done:,} of {planned:,} {unit}{rest}'
    return str(checkpoint)


def checkpoint_of(start: str | Path) -> Path:
    """The checkpoint that a run or a file stands for."""
    path = Path(start).expanduser()
    return Run.load(path).checkpoint if path.is_dir() else path
