"""mmdet's pyramid vision transformer as an encoder of MixMIM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mmmixmim.registry import MODELS
from mmmixmim.runtime.dependencies import require
from mmmixmim.validation import MissingDependencyError, UserError, as_pair

from ..mixing import TokenOwnership
from ._stock import StockTransformer, cell_side, replace_blocks
from .arch import read_out_indices

try:
    from mmdet.models.backbones.pvt import (
        AbsolutePositionEmbedding,
        PVTEncoderLayer,
        PyramidVisionTransformer,
        SpatialReductionAttention,
    )
    from mmdet.models.layers import nchw_to_nlc, nlc_to_nchw
except ImportError as error:
    _REASON = str(error)
    PVTEncoderLayer = nn.Module

    class PyramidVisionTransformer(nn.Module):
        """Stand-in for mmdet's class, which says how to install mmdet."""

        def __init__(self, *args, **kwargs) -> None:
            name = type(self).__name__
            require('mmdet', name)
            raise MissingDependencyError(
                f'{name} needs mmdet, which is installed but cannot be imported: '
                f'{_REASON}.'
            )


@MODELS.register_module()
class MixMIMPyramidVisionTransformer(StockTransformer, PyramidVisionTransformer):
    """PVT (arXiv 2102.12122), which can encode mixed images. Needs mmdet.

    Without an ownership it is mmdet's ``PyramidVisionTransformer``, bit by bit and by
    the same parameter names, so weights pretrained here load into the stock class and
    back. With one, images are mixed after the first patch embedding, and tokens attend
    to keys of their own image only. A key is reduced from a square of ``sr_ratio``
    tokens, which lies inside a cell at every stage.

    Unlike mmdet's class, it heeds ``prefix`` in ``init_cfg``, and does not convert the
    names of PVT's authors. A detector with mmdet's class loads a checkpoint of
    pretraining by ``load_from``.

    Args:
        pretrain_img_size: Height and width in pixels, or one int for both. Defaults to
            224.
        out_indices: Stages whose maps are returned. Negative ones count from the end.
            Defaults to -1, which pretraining and classification use. mmdet's class
            defaults to all four.
        **kwargs: Other arguments of mmdet's ``PyramidVisionTransformer``.

    Raises:
        MissingDependencyError: If mmdet is not installed, or cannot be imported.
        UserError: If information would pass from cell to cell outside attention: with
            ``use_conv_ffn`` or overlapping patches, as in PVT v2 and MiT, or with
            ``sr_ratios`` that don't divide a cell. Also with ``frozen_stages``, which
            mmdet's class doesn't have.
    """

    def __init__(
        self,
        pretrain_img_size: int | Sequence[int] = 224,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        img_size = as_pair('pretrain_img_size', pretrain_img_size)
        if 'frozen_stages' in kwargs:
            raise UserError(
                f'{type(self).__name__} cannot freeze stages, as '
                'PyramidVisionTransformer of mmdet, got '
                f'frozen_stages={kwargs["frozen_stages"]}: leave it out.'
            )
        out_indices = read_out_indices(out_indices, kwargs.get('num_stages', 4))
        super().__init__(img_size, out_indices=out_indices, **kwargs)
        replace_blocks(self, PVTEncoderLayer, MixMIMPVTLayer)
        if kwargs.get('use_conv_ffn'):
            raise UserError(
                f'{type(self).__name__} does not support use_conv_ffn=True: its 3x3 '
                'convolutions see tokens of neighbouring cells, which may be of '
                'another image. Leave it out.'
            )
        projections = [patch_embed.projection for patch_embed, _, _ in self.layers]
        self.stride = cell_side(
            self,
            {
                f'patch_sizes[{i}], strides[{i}] and paddings[{i}]': projection
                for i, projection in enumerate(projections)
            },
        )
        _check_reduction(self.strides, self.sr_ratios)
        self.img_size = img_size
        self.in_channels = projections[0].in_channels
        self.out_channels = [projection.out_channels for projection in projections]
        for module in self.modules():
            if isinstance(module, AbsolutePositionEmbedding):
                # mmdet leaves a NumPy array, where torch.compile breaks the graph.
                module.pos_shape = tuple(map(int, module.pos_shape))

    def forward(
        self, x: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Args:
            x: Images (B, C, H, W).
            ownership: Who owns each token. Defaults to None: plain images.

        Returns:
            One map (B, C, H / s, W / s) for each stage in ``out_indices``.
        """
        if ownership is None:
            return tuple(super().forward(x))
        outputs = []
        for i, (patch_embed, blocks, norm) in enumerate(self.layers):
            x, size = patch_embed(x)  # (B, H * W, C)
            if i == 0:
                x = ownership.mix(x.unflatten(1, size)).flatten(1, 2)
            blocked = _blocked(ownership, size, self.sr_ratios[i])
            for block in blocks:
                if isinstance(block, AbsolutePositionEmbedding):
                    x = block(x, size)
                else:
                    x = block(x, size, blocked)
            x = nlc_to_nchw(norm(x), size)
            if i in self.out_indices:
                outputs.append(x)
        return tuple(outputs)


class MixMIMPVTLayer(PVTEncoderLayer):
    """Block whose attention takes a mask."""

    def forward(
        self, x: Tensor, hw_shape: tuple[int, int], blocked: Tensor | None = None
    ) -> Tensor:
        """Mmdet's block on (B, H * W, C); for ``blocked`` see :func:`_blocked`."""
        if blocked is None:
            return super().forward(x, hw_shape)
        x = x + _attend(self.attn, self.norm1(x), hw_shape, blocked)
        return self.ffn(self.norm2(x), hw_shape, identity=x)


def _check_reduction(strides: Sequence[int], sr_ratios: Sequence[int]) -> None:
    """Raise unless each square of tokens that is reduced to a key lies in a cell."""
    tokens = 1  # along the side of a cell
    for i in reversed(range(len(strides))):
        if tokens % sr_ratios[i]:
            raise UserError(
                f'sr_ratios[{i}] must divide the {tokens} tokens along the side of a '
                f'cell in stage {i}, else a key is reduced from cells of several '
                f'images; got sr_ratios={list(sr_ratios)}. The product of the later '
                'strides always fits.'
            )
        tokens *= strides[i]


def _blocked(ownership: TokenOwnership, size: tuple[int, int], sr_ratio: int) -> Tensor:
    """Which queries must not see which keys: bool (1 or B, H * W, h * w)."""
    queries = ownership.at(*size).flatten(1)
    keys = ownership.at(*(side // sr_ratio for side in size)).flatten(1)
    return ~ownership.same_owner(queries, keys)


def _attend(
    attn: SpatialReductionAttention, x: Tensor, size: tuple[int, int], blocked: Tensor
) -> Tensor:
    """Mmdet's ``SpatialReductionAttention`` without its shortcut.

    Args:
        attn: The attention of a block.
        x: Tokens (B, H * W, C).
        size: Height H and width W of the map.
        blocked: See :func:`_blocked`.

    Returns:
        (B, H * W, C).
    """
    keys = x
    if attn.sr_ratio > 1:
        keys = attn.norm(nchw_to_nlc(attn.sr(nlc_to_nchw(x, size))))
    if len(blocked) == 1:
        mask = blocked[0]
    else:  # one mask for each head of each image
        mask = blocked.repeat_interleave(attn.num_heads, 0)
    queries, keys = x.transpose(0, 1), keys.transpose(0, 1)  # the batch is second
    x, _ = attn.attn(queries, keys, keys, attn_mask=mask, need_weights=False)
    return attn.dropout_layer(attn.proj_drop(x.transpose(0, 1)))
