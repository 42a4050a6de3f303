"""mmpretrain's Swin transformer as an encoder of MixMIM."""

from __future__ import annotations

from mmpretrain.models.backbones import SwinTransformer
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import WindowMSA
from torch import Tensor, nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from ..mixing import TokenOwnership
from ._shifted_windows import ShiftedWindowBlock, ShiftedWindowEncoder, attend
from ._stock import replace_blocks


@MODELS.register_module()
class MixMIMSwinTransformer(ShiftedWindowEncoder, SwinTransformer):
    """Swin (arXiv 2103.14030) with shifted windows, which can encode mixed images.

    Without an ownership it is mmpretrain's ``SwinTransformer``, bit by bit and by the
    same parameter names, so weights pretrained here load into the stock class and back.
    With one, images are mixed after the patch embedding, and each window's attention
    mask also blocks tokens of other images.

    Args:
        *args: Arguments of mmpretrain's ``SwinTransformer``.
        **kwargs: See ``args``. ``out_indices`` is the last stage by default. Smaller
            maps than the window, as of images below 224 pixels, need
            ``pad_small_map=True``.

    Raises:
        UserError: With ``out_after_downsample``, which only the stock class has, or
            with overlapping patches.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        replace_blocks(self, SwinBlock, MixMIMSwinBlock)
        replace_blocks(self, WindowMSA, MixMIMWindowMSA)
        if self.out_after_downsample:
            raise UserError(
                f'{type(self).__name__} does not support out_after_downsample=True: '
                'leave it out.'
            )
        self._set_sizes()
        self.out_channels = list(self.num_features)

    def _downsamples(self) -> list[nn.Module | None]:
        # mmpretrain's V1 merges patches at the end of a stage.
        return [None, *(stage.downsample for stage in self.stages[:-1])]


class MixMIMSwinBlock(ShiftedWindowBlock, SwinBlock):
    """Block of Swin that takes an ownership, too."""

    def mixed(
        self, x: Tensor, size: tuple[int, int], ownership: TokenOwnership
    ) -> Tensor:
        """The block on tokens (B, H * W, C) of mixed images."""
        x = x + attend(self.attn, self.norm1(x), size, ownership)
        return self.ffn(self.norm2(x), identity=x)


class MixMIMWindowMSA(WindowMSA):
    """Attention whose mask has the precision of the tokens.

    Mmpretrain's mask is float32, which fails with weights in low precision, as FSDP
    casts them.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mmpretrain's attention on windows (B * windows, n, C)."""
        return super().forward(x, None if mask is None else mask.to(x.dtype))
