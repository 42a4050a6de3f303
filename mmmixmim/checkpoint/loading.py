"""Load weights of any layout into a model, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from .files import read_weights
from .layouts import convert_state_dict


def load_whole(module: nn.Module, path: str | Path, prefix: str = '') -> None:
    """Load every parameter of a module from a checkpoint of any layout.

    Position embeddings and bias tables are resized if need be.

    Args:
        module: A model, or the part of one that ``prefix`` names.
        path: Checkpoint file; no code in it is run.
        prefix: Where the module is in our layout, as ``'backbone.'``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no MixMIM checkpoint, or does not fit the module.
    """
    weights = {
        name.removeprefix(prefix): value
        for name, value in convert_state_dict(read_weights(path), 'mmmixmim').items()
        if name.startswith(prefix)
    }
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        problems = [line.strip() for line in str(error).splitlines()[1:]]
        raise ValueError(
            f"{path} does not fit the config's {type(module).__name__}: {problems[0]} "
            f'This is the first of {len(problems)} problems.'
        ) from error
