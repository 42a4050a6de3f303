"""The models that the commands know by name, as entries of a config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmmixmim.checkpoint.encoder import is_native
from mmmixmim.models.backbones.arch import ARCHS
from mmmixmim.validation import UserError


@dataclass(frozen=True)
class Size:
    """Encoder and decoder of a model.

    Attributes:
        embed_dims: Channels of the first stage.
        depths: Blocks of each stage.
        num_heads: Attention heads of each stage; () without attention.
        decoder: Width, blocks and heads of the decoder.
        family: Kind of the encoder: 'mixmim', or that of a stock encoder.
    """

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    decoder: tuple[int, int, int] = (512, 8, 16)
    family: str = 'mixmim'

    @property
    def channels(self) -> int:
        """Channels of the last map."""
        return self.embed_dims * 2 ** (len(self.depths) - 1)

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
    # The stock encoders of configs/mixmim.
    'swin-tiny': Size(96, (2, 2, 6, 2), (3, 6, 12, 24), family='swin'),
    'swin-base': Size(128, (2, 2, 18, 2), (4, 8, 16, 32), family='swin'),
    'swin-v2-base': Size(128, (2, 2, 18, 2), (4, 8, 16, 32), family='swin-v2'),
    'convnext-base': Size(128, (3, 3, 27, 3), (), family='convnext'),
    'convnext-v2-base': Size(128, (3, 3, 27, 3), (), family='convnext-v2'),
    'hivit-base': Size(128, (2, 2, 24), (8,), family='hivit'),
    'pvt-small': Size(64, (3, 4, 6, 3), (1, 2, 5, 8), family='pvt'),
}


def largest_patch(model: str, image_size: int) -> int:
    """Side of a patch: 4 pixels, or 2 where that leaves less than 4x4 cells."""
    return 4 if image_size >= 4 * stride(model, 4) else 2


def stride(model: str, patch_size: int) -> int:
    """Side of a cell in pixels."""
    return patch_size * 2 ** (len(SIZES[model].depths) - 1)


def encoder(model: str, image_size: int, patch_size: int, in_channels: int) -> dict:
    """Backbone of a config."""
    size = SIZES[model]
    cell = stride(model, patch_size)
    shape = dict(img_size=image_size, patch_size=patch_size, in_channels=in_channels)
    if size.family in ('swin', 'swin-v2'):
        # The published windows of 7 and 8, whichever divides the maps.
        window = 7 if image_size // cell % 8 else 8
        windows = dict(window_size=window, drop_path_rate=0.0)
        if image_size // cell < window:
            windows['pad_small_map'] = True
        windows['out_indices'] = (len(size.depths) - 1,)
        if size.family == 'swin':
            return dict(
                type='MixMIMSwinTransformer', arch=size.arch, **shape, **windows
            )
        return dict(
            type='MixMIMSwinTransformerV2',
            arch=size.arch | dict(extra_norm_every_n_blocks=0),
            pretrained_window_sizes=[0] * len(size.depths),
            **shape,
            **windows,
        )
    if size.family in ('convnext', 'convnext-v2'):
        channels = [size.embed_dims * 2**i for i in range(len(size.depths))]
        v2 = dict(use_grn=True, layer_scale_init_value=0.0)
        return dict(
            type='MixMIMConvNeXt',
            arch=dict(depths=list(size.depths), channels=channels),
            img_size=image_size,
            stem_patch_size=patch_size,
            in_channels=in_channels,
            gap_before_final_norm=False,
            **(v2 if size.family == 'convnext-v2' else {}),
        )
    if size.family == 'hivit':
        return dict(
            type='MixMIMHiViT',
            arch=dict(
                embed_dims=size.channels,
                depths=list(size.depths),
                num_heads=size.num_heads[-1],
            ),
            img_size=image_size,
            patch_size=cell,
            in_chans=in_channels,
        )
    if size.family == 'pvt':
        return dict(
            type='MixMIMPyramidVisionTransformer',
            embed_dims=size.embed_dims,
            num_layers=list(size.depths),
            num_heads=list(size.num_heads),
            patch_sizes=[patch_size, 2, 2, 2],
            strides=[patch_size, 2, 2, 2],
            pretrain_img_size=image_size,
            in_channels=in_channels,
            drop_path_rate=0.0,
            out_indices=(3,),
        )
    return dict(
        type='MixMIMTransformer',
        arch=model if model in ARCHS else size.arch,
        **shape,
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
        weights: From :func:`mmmixmim.checkpoint.split_encoder`.

    Raises:
        UserError: If it is none of :data:`SIZES`.
    """
    if not is_native(weights):
        raise UserError('the encoder is no MixMIMTransformer.')
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
