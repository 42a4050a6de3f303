"""Refuse models whose parameters cannot be cast to a low precision."""

from __future__ import annotations

from mmpretrain.models.utils import WindowMSAV2
from torch import nn

from mmmixmim.validation import UserError


def check_casts(model: nn.Module, fix: str) -> None:
    """Raise for a model that computes in low precision under autocast alone.

    Args:
        model: The model, before its parameters are cast.
        fix: Option that keeps them in float32.

    Raises:
        UserError: For Swin V2, whose attention adds float32 to what it computes.
    """
    if any(isinstance(module, WindowMSAV2) for module in model.modules()):
        raise UserError(
            'The attention of Swin V2 cannot compute with parameters in low precision: '
            f'set {fix}, or use DDP with AmpOptimWrapper.'
        )
