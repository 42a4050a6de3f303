"""mmpretrain's HiViT as an encoder of MixMIM."""

from __future__ import annotations

from collections.abc import Sequence

from mmpretrain.models.backbones import HiViT
from mmpretrain.models.backbones.hivit import Attention, BlockWithRPE
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mmmixmim import ops
from mmmixmim.log import warn
from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    UserError,
    as_pair,
    check_image_size,
    renamed_arguments,
)

from ..mixing import TokenOwnership
from ._stock import StockTransformer, cell_side, replace_blocks
from .arch import read_out_indices


@MODELS.register_module()
class MixMIMHiViT(StockTransformer, HiViT):
    """HiViT (arXiv 2205.14949), which can encode mixed images.

    Without an ownership it is mmpretrain's ``HiViT``, bit by bit and by the same
    parameter names, so weights pretrained here load into the stock class and back.
    With one, images are mixed after the patch embedding. The stages before the last
    are FFNs and mergings inside a patch of 16 pixels, which is a cell. Only the last
    stage has attention, over the whole map, where other owners' tokens are masked.

    Two things that fail in the stock class work here: ``img_size`` with ``ape`` may
    have two different sides, and the last stage may have fewer blocks than the stem.

    Args:
        arch: Published size, or a dict with ``embed_dims``, ``depths`` and
            ``num_heads``. Defaults to 'base'.
        img_size: Height and width in pixels. With ``ape`` alone images may have another
            size, to which the position embedding is resized. With ``rpe`` they may not.
            Defaults to 224.
        in_channels: Channels of the images; the stock name ``in_chans`` works, too.
            Defaults to 3.
        out_indices: Blocks of the last stage whose maps are returned, all with stride
            16 and the channels of that stage. Several give a warning. Negative ones
            count from the end. (The stock class replaces the last entry by the last
            block.) Defaults to -1.
        **kwargs: Other arguments of mmpretrain's ``HiViT``.

    Raises:
        UserError: If patches overlap, as by ``kernel_size`` or ``pad_size``; if stages
            are frozen, which fails in the stock class; if the stages don't merge the
            ``inner_patches``, of which the stock class drops the rest; if ``rpe`` comes
            with two different sides; if the stride does not divide ``img_size``, or
            ``out_indices`` names no block.
    """

    @renamed_arguments(in_chans='in_channels')
    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        img_size = as_pair('img_size', img_size)
        height, width = img_size
        if kwargs.get('rpe') and height != width:
            raise UserError(
                f'rpe=True needs a square img_size, got {height}x{width}: use '
                'ape alone.'
            )
        if kwargs.get('frozen_stages', -1) not in (-1, 0):
            raise UserError(
                f'{type(self).__name__} cannot freeze stages, as HiViT of mmpretrain, '
                f'got frozen_stages={kwargs["frozen_stages"]}: leave it out.'
            )
        # The stock class writes into the list.
        super().__init__(
            arch, img_size, in_chans=in_channels, out_indices=[-1], **kwargs
        )
        stages, inner = self.num_stages, self.patch_embed.inner_patches
        if inner != (merged := 2 ** (stages - 1)):
            raise UserError(
                f'{stages} stages merge the {merged} inner patches along the side of a '
                f'patch into one token, got inner_patches={inner}: set it to {merged}, '
                'or change the number of depths.'
            )
        replace_blocks(self, BlockWithRPE, MixMIMHiViTBlock)
        self.out_indices = read_out_indices(
            out_indices, self.num_main_blocks, 'blocks of the last stage'
        )
        self.last_index = self.num_main_blocks - 1
        if len(self.out_indices) > 1:
            warn(
                f'{type(self).__name__} returns {len(self.out_indices)} maps of its '
                f'last stage, all with stride {self.patch_size} and {self.embed_dims} '
                'channels. An FPN or a UperNet wants strides of 4 to 32: put '
                'mmseg.Feature2Pyramid before it.'
            )
        projection = self.patch_embed.proj
        cell_side(self, {'kernel_size and pad_size': projection})
        self.in_channels = in_channels
        self.stride = self.patch_size
        check_image_size(img_size, self.stride, 'img_size')
        self.img_size = img_size
        self.out_channels = [self.embed_dims // 2**i for i in reversed(range(stages))]

    def forward(
        self, x: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Args:
            x: Images (B, C, H, W), whose sides the stride divides.
            ownership: Who owns each token. Defaults to None: plain images.

        Returns:
            One map (B, C, H / stride, W / stride) for each block in ``out_indices``.

        Raises:
            UserError: If images differ from ``img_size`` and ``rpe`` is set, or the
                stride does not divide them.
        """
        height, width = x.shape[2:]
        if self.rpe and (height, width) != self.img_size:
            raise UserError(
                f'With rpe=True images must be {self.img_size[0]}x{self.img_size[1]}, '
                f'got {height}x{width}: set img_size to it, or use ape alone.'
            )
        if ownership is None and (height % self.stride or width % self.stride):
            raise UserError(
                f'{type(self).__name__} needs images whose sides {self.stride} '
                f'divides, got {height}x{width}: pad the batch by '
                f'data_preprocessor=dict(pad_size_divisor={self.stride}) (mmdet, '
                f'mmpretrain) or dict(size=None, size_divisor={self.stride}, '
                f'test_cfg=dict(size_divisor={self.stride})) (mmseg).'
            )
        check_image_size((height, width), self.stride)
        grid = height // self.stride, width // self.stride
        x = self.patch_embed(x)  # (B, h * w, p, p, C)
        same = None
        if ownership is not None:
            x = _mix(x, grid, ownership)
            if ownership.isolated:
                owners = ownership.at(*grid).flatten(1)
                same = ownership.same_owner(owners).unsqueeze(1)  # (1 or B, 1, N, N)

        stem = len(self.blocks) - self.num_main_blocks
        for block in self.blocks[:stem]:
            x = block(x)
        x = x[..., 0, 0, :]  # (B, h * w, C)
        if self.ape:
            x = x + self.interpolate_pos_encoding(x, height, width)
        x = self.pos_drop(x)

        outputs = []
        for i, block in enumerate(self.blocks[stem:]):
            x = block(x, True if self.rpe else None, same=same)
            if i in self.out_indices:
                outputs.append(x.transpose(1, 2).unflatten(2, grid).contiguous())
        return tuple(outputs)

    def interpolate_pos_encoding(self, x: Tensor, h: int, w: int) -> Tensor:
        """Resize the position embedding to images of h x w pixels.

        The stock method assumes a square ``img_size``.
        """
        if (h, w) == self.img_size:
            return self.pos_embed
        if self.img_size[0] == self.img_size[1]:
            return super().interpolate_pos_encoding(x, h, w)
        return resize_pos_embed(
            self.pos_embed,
            self.patch_embed.patches_resolution,
            (h // self.patch_size, w // self.patch_size),
            num_extra_tokens=0,
        )


def _mix(x: Tensor, grid: tuple[int, int], ownership: TokenOwnership) -> Tensor:
    """Mix tokens (B, h * w, p, p, C), grouped by patches of p x p."""
    side = x.shape[2]
    maps = x.unflatten(1, grid).transpose(2, 3)  # (B, h, p, w, p, C)
    maps = ownership.mix(maps.flatten(3, 4).flatten(1, 2))
    maps = maps.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return maps.transpose(2, 3).flatten(1, 2)


class MixMIMHiViTBlock(BlockWithRPE):
    """Block whose attention takes a mask."""

    def forward(
        self,
        x: Tensor,
        rpe_index: bool | None = None,
        mask: Tensor | None = None,
        same: Tensor | None = None,
    ) -> Tensor:
        """Mmpretrain's block on (B, N, C), where tokens see those of ``same``."""
        if same is None:
            return super().forward(x, rpe_index, mask)
        out = _attend(self.attn, self.norm1(x), same)
        x = x + self.drop_path(_scale(out, self.gamma_1))
        out = self.mlp(self.norm2(x))
        return x + self.drop_path(_scale(out, self.gamma_2))


def _scale(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


def _attend(attn: Attention, x: Tensor, same: Tensor) -> Tensor:
    """Mmpretrain's ``Attention`` with a mask of pairs, which that one does not take.

    Args:
        attn: The attention.
        x: Tokens (B, N, C).
        same: Which tokens see which, bool (1 or B, 1, N, N).

    Returns:
        (B, N, C).
    """
    qkv = attn.qkv(x).unflatten(2, (3, attn.num_heads, -1))
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, C / heads)
    mask = same
    if attn.relative_position_bias_table is not None:
        mask = attn.relative_position_bias_table[attn.relative_position_index]
        mask = mask.permute(2, 0, 1).unsqueeze(0)  # (1, heads, N, N)
        mask = mask.masked_fill(~same, float('-inf')).to(queries.dtype)
    out = ops.biased_attention(
        queries,
        keys,
        values,
        mask,
        attn.attn_drop.p if attn.training else 0.0,
        attn.scale,
    )
    return attn.proj_drop(attn.proj(out.transpose(1, 2).flatten(2)))
