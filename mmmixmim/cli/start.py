"""Weights to start from: a run, or a checkpoint of any format."""

from __future__ import annotations

from pathlib import Path

from mmmixmim.checkpoint import encoder_weights, read_weights
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
    try:
        return model_of_weights(encoder_weights(read_weights(checkpoint)))
    except MissingFileError:
        raise
    except UserError as error:
        raise UserError(f'--from {str(start)!r}: {error}') from error


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
