"""mmpretrain's Swin transformer V2 as an encoder of MixMIM."""

from __future__ import annotations

from mmpretrain.models.backbones import SwinTransformerV2
from mmpretrain.models.backbones.swin_transformer_v2 import SwinBlockV2
from torch import Tensor

from mmmixmim.registry import MODELS

from ..mixing import TokenOwnership
from ._shifted_windows import ShiftedWindowBlock, ShiftedWindowEncoder, attend
from ._stock import replace_blocks


@MODELS.register_module()
class MixMIMSwinTransformerV2(ShiftedWindowEncoder, SwinTransformerV2):
    """Swin V2 (arXiv 2111.09883) with cosine attention, which can encode mixed images.

    Without an ownership it is mmpretrain's ``SwinTransformerV2``, bit by bit and by the
    same parameter names, so weights pretrained here load into the stock class and back.
    With one, images are mixed after the patch embedding, and each window's attention
    mask also blocks tokens of other images.

    Args:
        *args: Arguments of mmpretrain's ``SwinTransformerV2``.
        **kwargs: See ``args``. ``out_indices`` is the last stage by default. Smaller
            maps than the window, as of images below 256 pixels, need
            ``pad_small_map=True``.

    Raises:
        UserError: With overlapping patches.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        replace_blocks(self, SwinBlockV2, MixMIMSwinBlockV2)
        self._set_sizes()
        self.out_channels = [stage.out_channels for stage in self.stages]


class MixMIMSwinBlockV2(ShiftedWindowBlock, SwinBlockV2):
    """Block of Swin V2 that takes an ownership, too."""

    def mixed(
        self, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
    ) -> Tensor:
        """The block on tokens (B, H * W, C) of mixed images."""
        x = x + self.norm1(attend(self.attn, x, size, ownership))
        x = x + self.norm2(self.ffn(x))
        return self.norm3(x) if self.extra_norm else x
