"""mmpretrain's ConvNeXt as an encoder of MixMIM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from mmpretrain.models.backbones import ConvNeXt
from mmpretrain.models.backbones.convnext import ConvNeXtBlock
from mmpretrain.models.utils.norm import LayerNorm2d
from torch import Tensor

from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    UserError,
    as_pair,
    check_image_size,
    check_int_between,
)

from ..mixing import TokenOwnership
from ._pretrained import LoadsPretrained
from ._stock import ReturningTrain, replace_blocks, run_recomputed
from .arch import read_out_indices


@MODELS.register_module()
class MixMIMConvNeXt(LoadsPretrained, ReturningTrain, ConvNeXt):
    """ConvNeXt V1 and V2, which can encode mixed images.

    Sources: arXiv 2201.03545 and 2301.00808.

    Without an ownership it is mmpretrain's ``ConvNeXt``, bit by bit and by the same
    parameter names, so weights pretrained here load into the stock class and back.
    With one, images are mixed after the stem. Each depthwise convolution and, in V2,
    each global response norm then sees the tokens of one owner at a time, with zeros
    in place of the others. Downsampling takes 2x2 squares of tokens with stride 2.
    They lie inside a cell at every stage, so owners don't meet there.

    Cost: depthwise convolutions and response norms run once for each of the K images
    of a mixture, the rest once. For two images a training step of 'tiny' at 224 pixels
    takes about 1.3 (V1) and 1.6 (V2) times as long as on plain ones, on one CPU core.

    Args:
        arch: Published size, or a dict with ``depths`` and ``channels``. Defaults to
            'tiny'.
        img_size: Height and width in pixels for which the decoder makes its position
            embedding. The encoder takes any size. Defaults to 224.
        out_indices: Stages whose maps are returned. Negative ones count from the end.
            Defaults to -1.
        **kwargs: Other arguments of mmpretrain's ``ConvNeXt``. V2 takes
            ``use_grn=True, layer_scale_init_value=0.``. The stock default
            ``gap_before_final_norm=True`` pools the maps of plain images, mixed images
            always give maps.

    Raises:
        UserError: If ``out_indices`` names no stage, the stride does not divide
            ``img_size``, or ``norm_cfg`` is of another type than LN2d.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        *,
        img_size: int | Sequence[int] = 224,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        # The stock class counts from 4 stages, which all published sizes have.
        custom = isinstance(arch, dict) and 'depths' in arch
        stages = len(arch['depths']) if custom else 4
        out_indices = read_out_indices(out_indices, stages)
        check_int_between('frozen_stages', kwargs.get('frozen_stages', 0), -1, stages)
        super().__init__(arch, out_indices=out_indices, **kwargs)
        replace_blocks(self, ConvNeXtBlock, MixMIMConvNeXtBlock)
        stem, norm = self.downsample_layers[0]
        if not isinstance(norm, LayerNorm2d):
            raise UserError(
                f'{type(self).__name__} needs norms over the channels of each token, '
                f'got {type(norm).__name__}: leave norm_cfg out, or set its type to '
                'LN2d.'
            )
        self.in_channels = stem.in_channels
        self.stride = stem.stride[0] * 2 ** (self.num_stages - 1)
        self.img_size = as_pair('img_size', img_size)
        check_image_size(self.img_size, self.stride, 'img_size')
        self.out_channels = list(self.channels)

    def forward(
        self, x: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Args:
            x: Images (B, C, H, W).
            ownership: Who owns each token. Defaults to None: plain images.

        Returns:
            One map (B, C, H / s, W / s) for each stage in ``out_indices``. Of plain
            images with ``gap_before_final_norm`` one vector (B, C) each.
        """
        if ownership is None:
            return super().forward(x)
        x = self.downsample_layers[0](x).permute(0, 2, 3, 1)  # (B, H, W, C)
        x = ownership.mix(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            if i > 0:
                x = _channels_first(self.downsample_layers[i], x)
            for block in stage:
                x = block(x, ownership)
            if i in self.out_indices:
                output = getattr(self, f'norm{i}')(x, data_format='channel_last')
                outputs.append(output.permute(0, 3, 1, 2).contiguous())
        return tuple(outputs)


class MixMIMConvNeXtBlock(ConvNeXtBlock):
    """Block in which owners don't meet."""

    def forward(self, x: Tensor, ownership: TokenOwnership | None = None) -> Tensor:
        """Mmpretrain's block on (B, C, H, W); (B, H, W, C) with an ownership."""
        if ownership is None:
            return super().forward(x)
        convolve = partial(_channels_first, self.depthwise_conv)
        expand, project = self.pointwise_conv1, self.pointwise_conv2
        if not self.linear_pw_conv:
            expand, project = (
                partial(_channels_first, conv) for conv in (expand, project)
            )

        def run(x: Tensor) -> Tensor:
            out = _per_owner(convolve, x, ownership)
            out = self.norm(out, data_format='channel_last')
            out = self.act(expand(out))
            if self.grn is not None:
                norm = partial(self.grn, data_format='channel_last')
                out = _per_owner(norm, out, ownership)
            out = project(out)
            if self.gamma is not None:
                out = out * self.gamma
            return x + self.drop_path(out)

        return run_recomputed(self, run, x)


def _per_owner(
    layer: Callable[[Tensor], Tensor], maps: Tensor, ownership: TokenOwnership
) -> Tensor:
    """Apply a layer to each owner's tokens alone. maps: (B, H, W, C)."""
    return ownership.merge([layer(part) for part in ownership.split(maps)])


def _channels_first(layer: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """Apply a layer that takes (B, C, H, W) to maps (B, H, W, C)."""
    return layer(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
