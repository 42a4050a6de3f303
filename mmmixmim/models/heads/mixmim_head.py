"""The pixel target, the loss, and the reconstructed images of MixMIM."""

from __future__ import annotations

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmmixmim.registry import MODELS
from mmmixmim.validation import renamed_arguments

from ..mixing import TokenOwnership


@MODELS.register_module()
class MixMIMPretrainHead(BaseModule):
    """Compare the decoder's prediction with the pixels that were hidden.

    Source: MixMAE (arXiv 2205.13137), section 3. Inside :class:`MixMIM` the first two
    arguments follow from the backbone. The names ``patch_size`` and ``in_chans`` of
    mmpretrain's configs work too.

    Args:
        stride: Side of a cell in pixels. Defaults to 32.
        in_channels: Channels of the images. Defaults to 3.
        norm_pix: Whether the target is normalised cell by cell, by the mean and the
            unbiased variance. Defaults to True.
        loss: Config of a loss of prediction and target, both (B, cells, pixels).
            Defaults to the mean squared error.
        init_cfg: MMEngine's initialisation config.
    """

    EPS = 1e-6

    @renamed_arguments(patch_size='stride', in_chans='in_channels')
    def __init__(
        self,
        stride: int = 32,
        in_channels: int = 3,
        norm_pix: bool = True,
        loss: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.stride = stride
        self.in_channels = in_channels
        self.norm_pix = norm_pix
        loss = loss or dict(type='PixelReconstructionLoss', criterion='L2')
        with MODELS.switch_scope_and_registry('mmmixmim') as registry:
            self.loss_module = registry.build(loss)

    def loss(
        self, pred: Tensor, target: Tensor, mask: Tensor | TokenOwnership
    ) -> Tensor:
        """Loss on hidden cells.

        Args:
            pred: The decoder's prediction (B, h * w, stride ** 2 * C).
            target: The images (B, C, H, W), not mixed.
            mask: The cells (1 or B, h, w) that encoder and decoder got, or the
                :class:`TokenOwnership` made of them.

        Returns:
            Scalar, float32.
        """
        ownership = self._ownership(mask, target)
        cells = self.construct_target(target)
        masked = ownership.select_masked(cells, cells.flip(0))
        return self.loss_module(pred.float(), masked)

    @torch.no_grad()
    def reconstruct(
        self, pred: Tensor, target: Tensor, mask: Tensor | TokenOwnership
    ) -> Tensor:
        """Assemble predicted cells to images.

        With ``norm_pix`` the prediction has no absolute brightness and contrast: they
        are taken from the true cell, as in MAE's pictures.

        Args:
            pred: As in :meth:`loss`.
            target: As in :meth:`loss`.
            mask: As in :meth:`loss`.

        Returns:
            (B, C, H, W) in the target's pixel space. Cells that neither mixed image
            hides show the true pixels; there are none with a mask that both images of
            a pair share.
        """
        ownership = self._ownership(mask, target)
        cells = ownership.regroup(pred.float(), self.construct_target(target))
        if self.norm_pix:
            mean, deviation = self._statistics(self.patchify(target.float()))
            cells = cells * deviation + mean
        return self.unpatchify(cells, tuple(target.shape[2:]))

    def construct_target(self, images: Tensor) -> Tensor:
        """Cut images (B, C, H, W) into target cells, float32.

        Returns:
            (B, h * w, stride ** 2 * C), normalised with ``norm_pix``.
        """
        cells = self.patchify(images.float())
        if self.norm_pix:
            mean, deviation = self._statistics(cells)
            cells = (cells - mean) / deviation
        return cells

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images into cells.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, h * w, stride ** 2 * C), pixels row-major, channels last.
        """
        side = self.stride
        cells = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(self, cells: Tensor, size: tuple[int, int]) -> Tensor:
        """Undo :meth:`patchify`.

        Args:
            cells: (B, h * w, stride ** 2 * C).
            size: Height and width of the images in pixels.

        Returns:
            (B, C, H, W).
        """
        side = self.stride
        grid = tuple(pixels // side for pixels in size)
        cells = cells.unflatten(2, (side, side, self.in_channels)).unflatten(1, grid)
        return cells.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _ownership(
        self, mask: Tensor | TokenOwnership, images: Tensor
    ) -> TokenOwnership:
        ownership = TokenOwnership.of(mask, images.device)
        grid = tuple(side // self.stride for side in images.shape[2:])
        ownership.check(len(images), grid)
        return ownership

    def _statistics(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(cells, dim=-1, keepdim=True)
        return mean, (variance + self.EPS).sqrt()
