"""Load weights of any layout into a whole model."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mmmixmim.validation import UserError

from .files import read_weights
from .layouts import convert_state_dict, detect_layout


def load_whole(model: nn.Module, path: str | Path) -> None:
    """Load every parameter of a model from a checkpoint of any layout.

    Position embeddings and bias tables are resized if need be.

    Args:
        model: A pretraining or classification model.
        path: Checkpoint file or address; no code in it is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no MixMIM checkpoint, or does not fit the model.
    """
    weights = read_weights(path)
    try:
        # Ours may have necks that no other layout has; PyTorch compares all names.
        if detect_layout(weights) != 'mmmixmim':
            weights = convert_state_dict(weights, 'mmmixmim')
        model.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        problems = [line.strip() for line in str(error).splitlines()]
        if len(problems) > 1:  # PyTorch's heading, then one line for each
            problems = [f'{problems[1]} The first of {len(problems) - 1} problems.']
        raise UserError(
            f'{path} does not fit this {type(model).__name__}: {problems[0]}'
        ) from error
