"""The decoder of MixMIM, which predicts what each mixed image does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmixmim.checkpoint import adapt_part
from mmmixmim.geometry import (
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)
from mmmixmim.ops import Linear, run_block, set_low_precision, set_recompute
from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    UserError,
    as_pair,
    check_image_size,
    check_positive_int,
    renamed_arguments,
)

from ..layers import Attention, Norm, TransformerBlock, init_transformer_weights
from ..mixing import TokenOwnership


@MODELS.register_module()
class MixMIMPretrainDecoder(BaseModule):
    """MixMIM's decoder, a plain ViT that runs on both images of each mixture.

    Source: MixMAE (arXiv 2205.13137), section 3. Inside :class:`MixMIM` the first
    four arguments follow from the backbone. The names ``embed_dim``, ``in_chans``,
    ``encoder_stride`` and ``decoder_embed_dim`` of mmpretrain's configs work too, and
    so does ``num_patches``, which follows from the other sizes here.

    Args:
        encoder_channels: Channels of the encoder's last map. Defaults to 1024.
        in_channels: Channels of the images. Defaults to 3.
        stride: Side in pixels of the cell behind each token of the encoder's last map.
            Defaults to 32.
        img_size: Height and width in pixels that position embeddings are made for;
            they are resized for other inputs. Defaults to 224.
        decoder_embed_dims: Number of channels. Defaults to 512.
        decoder_depth: Number of blocks. Defaults to 8.
        decoder_num_heads: Number of attention heads. Defaults to 16.
        mlp_ratio: FFN expansion ratio. Defaults to 4.
        target_dims: Numbers that the head wants for each cell. Defaults to None: its
            pixels, ``stride ** 2 * in_channels``.
        recompute: What the backward pass recomputes, as in :class:`MixMIMTransformer`.
            Defaults to None.
        low_precision_norms: Whether LayerNorm and the residual stream stay in
            autocast's precision, as in :class:`MixMIMTransformer`. Defaults to False.
        num_patches: Number of cells, which is only checked. Defaults to None.
        init_cfg: MMEngine's initialisation config. Without one, the decoder keeps the
            authors' initialisation, which it gets when it is built.

    Raises:
        UserError: If ``decoder_num_heads`` does not divide ``decoder_embed_dims``,
            ``stride`` does not divide ``img_size``, or ``num_patches`` is another
            number than their quotient gives.
    """

    @renamed_arguments(
        embed_dim='encoder_channels',
        in_chans='in_channels',
        encoder_stride='stride',
        decoder_embed_dim='decoder_embed_dims',
    )
    def __init__(
        self,
        encoder_channels: int = 1024,
        in_channels: int = 3,
        stride: int = 32,
        img_size: int | Sequence[int] = 224,
        decoder_embed_dims: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        target_dims: int | None = None,
        recompute: str | None = None,
        low_precision_norms: bool = False,
        num_patches: int | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_positive_int('decoder_embed_dims', decoder_embed_dims)
        check_positive_int('decoder_num_heads', decoder_num_heads)
        if decoder_embed_dims % decoder_num_heads:
            raise UserError(
                f'decoder_embed_dims {decoder_embed_dims} is not divisible by '
                f'decoder_num_heads {decoder_num_heads}: change one of them.'
            )
        img_size = as_pair('img_size', img_size)
        check_image_size(img_size, stride, 'img_size')
        self.grid = tuple(side // stride for side in img_size)
        cells = math.prod(self.grid)
        if num_patches not in (None, cells):
            raise UserError(
                f'num_patches is {num_patches}, but img_size {img_size} has {cells} '
                f'cells of {stride} pixels: leave num_patches out.'
            )

        dim = decoder_embed_dims
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(self.grid, dim), requires_grad=False
        )
        self.decoder_embed = Linear(encoder_channels, dim)
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(dim, Attention(dim, decoder_num_heads), mlp_ratio)
            for _ in range(decoder_depth)
        )
        self.decoder_norm = Norm(dim)
        self.decoder_pred = Linear(dim, target_dims or stride**2 * in_channels)
        self.apply(init_transformer_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        set_recompute(self, recompute)
        set_low_precision(self, low_precision_norms)

    def forward(
        self, x: Tensor | tuple[Tensor, ...], mask: Tensor | TokenOwnership
    ) -> Tensor:
        """Predict the hidden pixels of every mixed image.

        Only cells that count are predicted: of the two passes over a mixed image, each
        cell takes the one that did not see it.

        Args:
            x: The encoder's last map (B, C, h, w), or its tuple of maps.
            mask: The cells (1 or B, h, w) that the encoder got, or the
                :class:`TokenOwnership` made of them.

        Returns:
            (B, h * w, target_dims): at each cell of mixed image i the pixels of image i
            where its partner shows, of the partner where image i shows. For K images
            ((K - 1) * B, h * w, target_dims), see :meth:`TokenOwnership.select_masked`.
        """
        maps = x if isinstance(x, Tensor) else x[-1]
        grid = tuple(maps.shape[2:])
        ownership = TokenOwnership.of(mask, len(maps), grid, maps.device)
        passes = self.decode(maps, ownership).chunk(ownership.passes)
        return self.decoder_pred(ownership.select_masked(passes))

    def decode(self, maps: Tensor, ownership: TokenOwnership) -> Tensor:
        """Run the blocks on both passes.

        Args:
            maps: The encoder's last map (B, C, h, w).
            ownership: Who owns each cell.

        Returns:
            Decoded tokens (passes * B, h * w, decoder_embed_dims): first of the passes
            that see each image's own tokens, then of those that see its partner's.
        """
        tokens = self.decoder_embed(maps.flatten(2).transpose(1, 2))  # (B, h * w, dim)
        tokens = ownership.unmix(tokens, self.mask_token)  # (passes * B, h * w, dim)
        positions = resize_position_embedding(
            self.decoder_pos_embed, self.grid, tuple(maps.shape[2:])
        )
        if self.low_precision:  # else the sum is in float32
            positions = positions.to(tokens.dtype)
        tokens = tokens + positions
        for block in self.decoder_blocks:
            tokens = run_block(block, tokens)
        return self.decoder_norm(tokens)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        adapt_part(state_dict, prefix)
        load_position_embedding(state_dict, f'{prefix}decoder_pos_embed', self.grid)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
