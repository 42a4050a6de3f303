"""mmpretrain's Swin transformer as an encoder of MixMIM."""

from __future__ import annotations

import torch.nn.functional as F
from mmpretrain.models.backbones import SwinTransformer
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import ShiftWindowMSA, resize_pos_embed, to_2tuple
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute_activations

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from ..mixing import TokenOwnership


@MODELS.register_module()
class MixMIMSwinTransformer(SwinTransformer):
    """Swin (arXiv 2103.14030) with shifted windows, which can encode mixed images.

    Without an ownership it is mmpretrain's ``SwinTransformer``, bit by bit and by the
    same parameter names, so weights pretrained here load into the stock class and back.
    With one, images are mixed after the patch embedding, and each window's attention
    mask also blocks tokens of other images.

    Args:
        *args: Arguments of mmpretrain's ``SwinTransformer``.
        **kwargs: See ``args``. Smaller maps than the window, as of images below 224
            pixels, need ``pad_small_map=True``.

    Raises:
        UserError: With ``out_after_downsample``, which only the stock class has.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.out_after_downsample:
            raise UserError(
                f'{type(self).__name__} does not support out_after_downsample=True: '
                'leave it out.'
            )
        patch = self.patch_embed.projection
        self.in_channels = patch.in_channels
        self.stride = patch.stride[0] * 2 ** (self.num_layers - 1)
        self.img_size = to_2tuple(self.patch_embed.init_input_size)
        self.out_channels = list(self.num_features)

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
        x, size = self.patch_embed(x)  # (B, H * W, C)
        x = ownership.mix(x.unflatten(1, size)).flatten(1, 2)
        if self.use_abs_pos_embed:
            x = x + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                size,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        x = self.drop_after_pos(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            for block in stage.blocks:
                x = _run_block(block, x, size, ownership)
            if i in self.out_indices:
                output = getattr(self, f'norm{i}')(x).unflatten(1, size)
                outputs.append(output.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return tuple(outputs)


def _run_block(
    block: SwinBlock, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
) -> Tensor:
    """Mmpretrain's ``SwinBlock``, with attention inside owners. x: (B, H * W, C)."""

    def run(x: Tensor) -> Tensor:
        x = x + _attend(block.attn, block.norm1(x), size, ownership)
        return block.ffn(block.norm2(x), identity=x)

    if block.with_cp and x.requires_grad:
        return recompute_activations(run, x, use_reentrant=False)
    return run(x)


def _attend(
    attn: ShiftWindowMSA, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
) -> Tensor:
    """Mmpretrain's ``ShiftWindowMSA``, where tokens don't see other owners'.

    Owners are padded, rolled and cut into windows exactly as their tokens.
    """
    window = attn.window_size
    height, width = size
    shift = attn.shift_size
    if min(size) == window and not attn.pad_small_map:
        shift = 0
    padding = (0, 0, 0, -width % window, 0, -height % window)
    maps = F.pad(x.unflatten(1, size), padding)  # (B, H', W', C)
    owners = F.pad(ownership.at(height, width).unsqueeze(-1), padding)
    if shift:
        maps, owners = (each.roll((-shift, -shift), (1, 2)) for each in (maps, owners))
    padded = maps.shape[1:3]
    windows = attn.window_partition(maps, window).flatten(1, 2)  # (B * windows, n, C)
    owners = attn.window_partition(owners, window).flatten(1)  # (1 or B * windows, n)
    same = ownership.same_owner(owners)

    mask = attn.get_attn_mask(
        padded, window_size=window, shift_size=shift, device=x.device
    )  # (windows, n, n), or None without a shift
    if mask is None:
        mask = x.new_zeros(1, 1, 1)
    elif len(mask) != len(same):  # masks of each image
        mask = mask.repeat(len(x), 1, 1)
    mask = mask.expand_as(same).masked_fill(~same, float('-inf'))
    windows = attn.w_msa(windows, mask).unflatten(1, (window, window))
    maps = attn.window_reverse(windows, *padded, window)
    if shift:
        maps = maps.roll((shift, shift), (1, 2))
    return attn.drop(maps[:, :height, :width].flatten(1, 2))
