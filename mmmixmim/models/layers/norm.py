"""The normalisation of every layer."""

from __future__ import annotations

from mmmixmim.ops import LayerNorm


class Norm(LayerNorm):
    """LayerNorm over the channels, eps 1e-5, as in the authors' code.

    To try another norm, change this class: encoder and decoder use it everywhere.

    Args:
        dim: Number of channels.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-5)
