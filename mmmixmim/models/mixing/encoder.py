"""What an encoder must offer to be pretrained by MixMIM."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from mmmixmim.validation import UserError

from .ownership import TokenOwnership


class MixingEncoder(Protocol):
    """A hierarchical encoder that mixes images.

    Attributes:
        stride: Side in pixels of the cell behind each token of the last map.
        img_size: Height and width in pixels that the encoder is made for.
        in_channels: Channels of the images.
        out_channels: Channels of each stage's map.
    """

    stride: int
    img_size: tuple[int, int]
    in_channels: int
    out_channels: list[int]

    def __call__(
        self, images: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Tokens of different owners must not exchange information.

        Args:
            images: (B, in_channels, H, W).
            ownership: Who owns each token. None for plain images.

        Returns:
            Maps (B, C, h, w); the last one has one token per cell.
        """


def check_encoder_attributes(encoder: nn.Module) -> None:
    """Raise a UserError that names what ``encoder`` lacks to be pretrained."""
    for name in MixingEncoder.__annotations__:
        if not hasattr(encoder, name):
            raise UserError(
                f'{type(encoder).__name__} cannot be pretrained by MixMIM: it has no '
                f'attribute {name}. Use mmmixmim.MixMIMTransformer, or an encoder that '
                'follows mmmixmim.models.mixing.MixingEncoder.'
            )
    last = len(encoder.out_channels) - 1
    if getattr(encoder, 'out_indices', (last,)) != (last,):
        raise UserError(
            'Pretraining uses the last map only: leave out_indices out of the '
            f'backbone, got {encoder.out_indices}.'
        )
