"""The models that the commands know by name, as entries of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmmixmim.models.backbones.arch import ARCHS
from mmmixmim.validation import UserError


@dataclass(frozen=True)
class Size:
    """Encoder and decoder of a model.

    Attributes:
        embed_dims: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage.
        decoder: Width, blocks and heads of the decoder.
    """

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    decoder: tuple[int, int, int] = (512, 8, 16)

    @property
    def arch(self) -> dict:
        """``arch`` of the backbone."""
        return dict(
            embed_dims=self.embed_dims,
            depths=list(self.depths),
            num_heads=list(self.num_heads),
        )


SIZES = {
    'micro': Size(32, (1, 1, 4), (2, 4, 8), (64, 2, 4)),
    'tiny': Size(64, (2, 2, 6, 2), (2, 4, 8, 16), (256, 4, 8)),
    **{name: Size(**arch) for name, arch in ARCHS.items()},
}


def largest_patch(model: str, image_size: int) -> int:
    """Side of a patch: 4 pixels, or 2 where that leaves less than 4x4 cells."""
    return 4 if image_size >= 4 * stride(model, 4) else 2


def stride(model: str, patch_size: int) -> int:
    """Side of a cell in pixels."""
    return patch_size * 2 ** (len(SIZES[model].depths) - 1)


def encoder(model: str, image_size: int, patch_size: int, in_channels: int) -> dict:
    """Backbone of a config."""
    return dict(
        type='MixMIMTransformer',
        arch=model if model in ARCHS else SIZES[model].arch,
        img_size=image_size,
        patch_size=patch_size,
        in_channels=in_channels,
    )


def pretraining_model(
    model: str, image_size: int, patch_size: int, in_channels: int
) -> dict:
    """Model of a pretraining config, without data preprocessor."""
    width, depth, heads = SIZES[model].decoder
    return dict(
        type='MixMIM',
        backbone=encoder(model, image_size, patch_size, in_channels),
        neck=dict(
            type='MixMIMPretrainDecoder',
            decoder_embed_dims=width,
            decoder_depth=depth,
            decoder_num_heads=heads,
        ),
        head=dict(type='MixMIMPretrainHead'),
        mask_ratio=0.5,
    )


def model_of_weights(weights: dict[str, torch.Tensor]) -> dict:
    """Tell model and image size of an encoder from its weights.

    Args:
        weights: From :func:`mmmixmim.checkpoint.encoder_weights`.

    Raises:
        UserError: If it is none of :data:`SIZES`.
    """
    width, channels, patch, _ = weights['patch_embed.proj.weight'].shape
    names = [name.split('.') for name in weights if name.startswith('layers.')]
    depths: Sequence[int] = tuple(
        1 + max(int(x[3]) for x in names if x[1] == str(i) and x[2] == 'blocks')
        for i in range(1 + max(int(x[1]) for x in names))
    )
    side = round(weights['absolute_pos_embed'].shape[1] ** 0.5)
    for name, size in SIZES.items():
        if (size.embed_dims, size.depths) == (width, depths):
            found = dict(model=name, image_size=side * patch, patch_size=patch)
            return found | dict(in_channels=channels)
    raise UserError(
        f'the encoder has {width} channels and {"-".join(map(str, depths))} blocks, '
        f'which is none of {", ".join(SIZES)}: use tools/train.py with a config of '
        'yours.'
    )
