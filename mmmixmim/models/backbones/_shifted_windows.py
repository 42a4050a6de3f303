"""What both versions of mmpretrain's Swin need to encode mixed images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from mmpretrain.models.utils import ShiftWindowMSA, resize_pos_embed, to_2tuple
from torch import Tensor, nn

from mmmixmim.validation import UserError, check_int_between

from ..mixing import TokenOwnership
from ._stock import StockTransformer, cell_side, run_recomputed
from .arch import read_out_indices

_PADDING = 255  # an owner that no token has


class ShiftedWindowEncoder(StockTransformer):
    """Mixin of the encoders made of ``SwinTransformer`` and ``SwinTransformerV2``."""

    def __init__(
        self,
        arch: str | dict = 'tiny',
        *args,
        out_indices: int | Sequence[int] = -1,
        **kwargs,
    ) -> None:
        stages = len(arch['depths']) if isinstance(arch, dict) else 4
        out_indices = read_out_indices(out_indices, stages)
        frozen = kwargs.get('frozen_stages', -1)
        check_int_between('frozen_stages', frozen, -1, stages - 1)
        super().__init__(arch, *args, out_indices=out_indices, **kwargs)

    def _set_sizes(self) -> None:
        """Set what MixMIM reads of an encoder, besides ``out_channels``.

        Raises:
            UserError: If patches overlap.
        """
        layers = dict(patch_cfg=self.patch_embed.projection)
        for i, stage in enumerate(self.stages):
            if stage.downsample is not None:
                layers[f'downsample_cfg in stage {i}'] = stage.downsample.sampler
        self.stride = cell_side(self, layers)
        self.in_channels = self.patch_embed.projection.in_channels
        self.img_size = to_2tuple(self.patch_embed.init_input_size)

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
            return super().forward(x)
        x, size = self._embed(x, ownership)  # (B, H * W, C)
        outputs = []
        stages = zip(self._downsamples(), self.stages, strict=True)
        for i, (downsample, stage) in enumerate(stages):
            if downsample is not None:
                x, size = downsample(x, size)
            for block in stage.blocks:
                x = block(x, size, ownership)
            if i in self.out_indices:
                outputs.append(self._output(i, x, size))
        return tuple(outputs)

    def _downsamples(self) -> list[nn.Module | None]:
        """The patch merging before each stage, or None."""
        return [stage.downsample for stage in self.stages]

    def _embed(
        self, images: Tensor, ownership: TokenOwnership
    ) -> tuple[Tensor, tuple[int, int]]:
        """Embed and mix (B, C, H, W) to tokens (B, h * w, C) of a map (h, w)."""
        x, size = self.patch_embed(images)
        x = ownership.mix(x.unflatten(1, size)).flatten(1, 2)
        if self.use_abs_pos_embed:
            x = x + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                size,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        return self.drop_after_pos(x), size

    def _output(self, stage: int, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Normalise tokens (B, H * W, C) to the map (B, C, H, W) of a stage."""
        x = getattr(self, f'norm{stage}')(x).unflatten(1, size)
        return x.permute(0, 3, 1, 2).contiguous()


class ShiftedWindowBlock:
    """Mixin of the blocks of both versions, whose attention stays inside owners."""

    def forward(
        self,
        x: Tensor,
        hw_shape: tuple[int, int],
        ownership: TokenOwnership | None = None,
    ) -> Tensor:
        """Mmpretrain's block, or :meth:`mixed` with an ownership. x: (B, H * W, C)."""
        if ownership is None:
            return super().forward(x, hw_shape)
        mixed = partial(self.mixed, size=hw_shape, ownership=ownership)
        return run_recomputed(self, mixed, x)

    def mixed(
        self, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
    ) -> Tensor:
        """The block on tokens (B, H * W, C) of mixed images."""
        raise NotImplementedError


def attend(
    attn: ShiftWindowMSA, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
) -> Tensor:
    """Mmpretrain's ``ShiftWindowMSA``, where tokens don't see other owners'.

    Owners are padded, rolled and cut into windows exactly as their tokens. All tokens
    see the padding, as in the stock class.

    Args:
        attn: The attention of a block of Swin, of any version.
        x: Tokens (B, H * W, C).
        size: Height H and width W of the map.
        ownership: Who owns each token.

    Returns:
        (B, H * W, C).

    Raises:
        UserError: If the map is smaller than the window, without ``pad_small_map``.
    """
    window = attn.window_size
    height, width = size
    shift = attn.shift_size
    if not attn.pad_small_map:
        if min(size) < window:
            raise UserError(
                f'A map of {height}x{width} tokens is smaller than the window of '
                f'{window}x{window}: set pad_small_map=True, use larger images or a '
                'smaller window_size.'
            )
        if min(size) == window:
            shift = 0
    padding = (0, 0, 0, -width % window, 0, -height % window)
    maps = F.pad(x.unflatten(1, size), padding)  # (B, H', W', C)
    owners = F.pad(ownership.at(height, width).unsqueeze(-1), padding, value=_PADDING)
    if shift:
        maps, owners = (each.roll((-shift, -shift), (1, 2)) for each in (maps, owners))
    padded = maps.shape[1:3]
    windows = attn.window_partition(maps, window).flatten(1, 2)  # (B * windows, n, C)
    owners = attn.window_partition(owners, window).flatten(1)  # (1 or B * windows, n)
    seen = ownership.same_owner(owners) | (owners == _PADDING).unsqueeze(1)

    mask = attn.get_attn_mask(
        padded, window_size=window, shift_size=shift, device=x.device
    )  # (windows, n, n), or None without a shift
    if mask is None:
        mask = x.new_zeros(1, 1, 1)
    elif len(mask) != len(seen):  # masks of each image
        mask = mask.repeat(len(x), 1, 1)
    mask = mask.expand_as(seen).masked_fill(~seen, float('-inf'))
    windows = attn.w_msa(windows, mask).unflatten(1, (window, window))
    maps = attn.window_reverse(windows, *padded, window)
    if shift:
        maps = maps.roll((shift, shift), (1, 2))
    return attn.drop(maps[:, :height, :width].flatten(1, 2))
