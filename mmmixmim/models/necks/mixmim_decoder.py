"""The decoder of MixMIM: it guesses what each mixed image does not show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmixmim.checkpoint import rename_entries
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair, check_img_size

from ..utils import (
    TokenOwnership,
    TransformerBlock,
    init_transformer_weights,
    linear,
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)


@MODELS.register_module()
class MixMIMPretrainDecoder(BaseModule):
    """MixMIM's decoder, a plain ViT that runs on both images of each mix.

    Source: MixMAE (arXiv 2205.13137), section 3.2. Inside :class:`MixMIM` the
    first four arguments follow from the backbone and need not be given.

    Args:
        embed_dim: Channels of the encoder's last map. Defaults to 1024.
        in_chans: Channels of the images. Defaults to 3.
        encoder_stride: Side in pixels of the cell behind each token of the
            encoder's last map. Defaults to 32.
        img_size: Height and width in pixels that position embeddings are made
            for; resized for other inputs. Defaults to 224.
        decoder_embed_dim: Number of channels. Defaults to 512.
        decoder_depth: Number of blocks. Defaults to 8.
        decoder_num_heads: Number of attention heads. Defaults to 16.
        mlp_ratio: Hidden channels of the perceptrons over their input's.
            Defaults to 4.
        init_cfg: MMEngine's initialisation config. Without one, weights are
            initialised as the authors do when the model is built.
    """

    def __init__(
        self,
        embed_dim: int = 1024,
        in_chans: int = 3,
        encoder_stride: int = 32,
        img_size: int | Sequence[int] = 224,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: float = 4.0,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if decoder_embed_dim % decoder_num_heads:
            raise UserError(
                f'decoder_embed_dim {decoder_embed_dim} is not divisible by '
                f'decoder_num_heads {decoder_num_heads}: change one of them.'
            )
        img_size = as_pair('img_size', img_size)
        check_img_size(img_size, encoder_stride)
        self.grid = tuple(side // encoder_stride for side in img_size)

        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_pos_embed = nn.Parameter(
            sincos_position_embedding(self.grid, decoder_embed_dim), requires_grad=False
        )
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.decoder_blocks = nn.ModuleList(
            TransformerBlock(decoder_embed_dim, decoder_num_heads, mlp_ratio=mlp_ratio)
            for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, encoder_stride**2 * in_chans)
        self.apply(init_transformer_weights)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(
        self, x: Tensor | tuple[Tensor, ...], mask: Tensor | TokenOwnership
    ) -> Tensor:
        """Predict the hidden pixels of every mixed image.

        Only the cells that count are predicted: of the two passes over a mixed
        image, each cell takes the one that did not see it.

        Args:
            x: The encoder's last map (B, C, h, w), or its tuple of maps.
            mask: The cells (1 or B, h, w) that the encoder got, or the
                :class:`TokenOwnership` made of them.

        Returns:
            (B, h * w, stride ** 2 * channels): at each cell of mixed image i
            the pixels of image i where its partner shows, and of the partner
            where image i shows.
        """
        maps = x if isinstance(x, Tensor) else x[-1]
        ownership = TokenOwnership.of(mask, maps.device)
        own, partner = self.decode(maps, ownership).chunk(2)
        return linear(self.decoder_pred, ownership.hidden(own, partner))

    def decode(self, maps: Tensor, ownership: TokenOwnership) -> Tensor:
        """Run the blocks on both passes.

        Args:
            maps: The encoder's last map (B, C, h, w).
            ownership: Who owns each cell.

        Returns:
            Decoded tokens (2B, h * w, decoder_embed_dim): first those of the
            passes that see each image's own tokens, then those of the passes
            that see its partner's.
        """
        ownership.check(len(maps), tuple(maps.shape[2:]))
        tokens = linear(self.decoder_embed, maps.flatten(2).transpose(1, 2))
        tokens = ownership.unmix(tokens, self.mask_token)
        tokens = tokens + resize_position_embedding(
            self.decoder_pos_embed, self.grid, tuple(maps.shape[2:])
        )
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_norm(tokens)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        rename_entries(state_dict, prefix, 'ln1.weight')
        load_position_embedding(state_dict, f'{prefix}decoder_pos_embed', self.grid)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
