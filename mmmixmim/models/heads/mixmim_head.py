"""The pixel target, the loss, and the reconstructed images of MixMIM."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.model import BaseModule
from mmpretrain.models.losses import PixelReconstructionLoss
from mmpretrain.models.selfsup.maskfeat import HOGGenerator
from torch import Tensor

from mmmixmim.ops import runs_eagerly, runs_on_cpu
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, renamed_arguments

from ..mixing import TokenOwnership


class _HOGMaps(HOGGenerator):
    """mmpretrain's HOG features as maps (B, 3 * bins, H / 8, W / 8)."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the maps of images (B, 3, H, W)."""
        side = self.gaussian_window
        height, width = images.shape[2:]
        if height != width or height % side:
            raise UserError(
                f"target='hog' needs square images of a multiple of {side} pixels, got "
                f'{height}x{width}.'
            )
        return super().forward(images)

    def _reshape(self, hog_feat: Tensor) -> Tensor:
        return hog_feat.flatten(1, 2)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args, **kwargs) -> _HOGMaps:
        """Stay in float32 where the model is cast to low precision, as by DeepSpeed."""

        def keep_type(buffer: Tensor) -> Tensor:
            changed = fn(buffer)
            same = changed.dtype == buffer.dtype
            return changed if same else buffer.to(changed.device)

        return super()._apply(keep_type, *args, **kwargs)


def _build_hog(target: str, stride: int, in_channels: int) -> _HOGMaps | None:
    if target == 'pixels':
        return None
    if target != 'hog':
        raise UserError(f"target must be 'pixels' or 'hog', got {target!r}.")
    hog = _HOGMaps()
    if in_channels != 3 or stride % hog.pool:
        raise UserError(
            f"target='hog' needs RGB images and cells of a multiple of {hog.pool} "
            f"pixels, got in_channels={in_channels} and stride={stride}: use 'pixels'."
        )
    return hog


@MODELS.register_module()
class MixMIMPretrainHead(BaseModule):
    """Compare the decoder's prediction with the pixels that were hidden.

    Source: MixMAE (arXiv 2205.13137), section 3. Inside :class:`MixMIM` the first two
    arguments follow from the backbone. The names ``patch_size`` and ``in_chans`` of
    mmpretrain's configs work too.

    Args:
        stride: Side of a cell in pixels. Defaults to 32.
        in_channels: Channels of the images. Defaults to 3.
        norm_pix: Whether pixels are normalised cell by cell, by the mean and the
            unbiased variance. HOG always is. Defaults to True.
        target: What is predicted: 'pixels', or 'hog', the histograms of oriented
            gradients of mmpretrain's MaskFeat (arXiv 2112.09133) over 8x8 pixels.
            Defaults to 'pixels'.
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
        target: str = 'pixels',
        loss: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.stride = stride
        self.in_channels = in_channels
        self.norm_pix = norm_pix
        self.hog = _build_hog(target, stride, in_channels)
        if self.hog and not norm_pix:
            raise UserError(
                "norm_pix=False needs target='pixels', got target='hog', whose "
                'histograms are always normalised: leave norm_pix out.'
            )
        if norm_pix and stride == in_channels == 1:
            raise UserError(
                'norm_pix=True normalises the values of a cell, and with stride 1 and '
                '1 channel it has a single one: set norm_pix=False of the head, or use '
                'larger cells.'
            )
        loss = loss or dict(type='PixelReconstructionLoss', criterion='L2')
        with MODELS.switch_scope_and_registry('mmmixmim') as registry:
            self.loss_module = registry.build(loss)

    def loss(
        self,
        pred: Tensor,
        target: Tensor,
        mask: Tensor | TokenOwnership,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """Loss on hidden cells.

        With weights w of the values x (pixels times channels) of a cell, x is
        normalised by the weighted mean and the unbiased variance for weights::

            mean = sum(w x) / V1                        V1 = sum(w)
            var  = sum(w (x - mean)^2) / (V1 - V2 / V1) V2 = sum(w^2)

        and the loss over all hidden cells is ``sum(w (pred - x)^2) / sum(w)``. With
        weights 0 and 1 these are the statistics and the error of the valid pixels
        alone; a cell without any counts nowhere. With weights that are all 1 the loss
        is that without weights: on a CPU bit for bit, elsewhere to rounding, since
        looking at them would wait for the device.

        Args:
            pred: The decoder's prediction (B, h * w, target_dims), for K images
                ((K - 1) * B, h * w, target_dims).
            target: The images (B, C, H, W), not mixed.
            mask: The cells (1 or B, h, w) that encoder and decoder got, or the
                :class:`TokenOwnership` made of them.
            pixel_weight: How much each pixel counts, (B, H, W), not negative, 0 for
                pixels without data. Defaults to None: all the same.

        Returns:
            Scalar, float32. 0 if no hidden pixel counts.

        Raises:
            UserError: If there are weights and the target is not the pixels, or the
                loss is no ``PixelReconstructionLoss``.
        """
        ownership = self._ownership(mask, target)
        if pixel_weight is not None and not (
            runs_eagerly()
            and runs_on_cpu(pixel_weight)
            and bool((pixel_weight == 1).all())
        ):
            return self._weighted_loss(pred, target, ownership, pixel_weight)
        cells = self.construct_target(target)
        masked = ownership.targets(cells)
        if ownership.scored is None:
            return self.loss_module(pred.float(), masked)
        scored = ownership.scored.expand(len(cells), -1)
        return self.loss_module(pred.float(), masked, scored)

    def _weighted_loss(
        self,
        pred: Tensor,
        target: Tensor,
        ownership: TokenOwnership,
        pixel_weight: Tensor,
    ) -> Tensor:
        """The loss with weights, see :meth:`loss`."""
        if self.hog is not None or type(self.loss_module) is not (
            PixelReconstructionLoss
        ):
            raise UserError(
                "Weights of pixels need target='pixels' and a PixelReconstructionLoss "
                'as loss of MixMIMPretrainHead.'
            )
        weights = self._cell_weights(pixel_weight)
        masked = ownership.targets(self.construct_target(target, weights))
        weights = ownership.targets(weights)
        total = 1
        if ownership.scored is not None:
            weights = weights * ownership.scored.unsqueeze(-1)
            total = self.loss_module.channel
        error = self.loss_module.penalty(pred.float(), masked)
        # Without a weight the sum is 0, too.
        return (weights * error).sum() / weights.sum().clamp(min=1e-12) / total

    @torch.no_grad()
    def reconstruct(
        self,
        pred: Tensor,
        target: Tensor,
        mask: Tensor | TokenOwnership,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """Assemble predicted cells to images.

        With ``norm_pix`` the prediction has no absolute brightness and contrast: they
        are taken from the true cell, as in MAE's pictures.

        Args:
            pred: As in :meth:`loss`.
            target: As in :meth:`loss`.
            mask: As in :meth:`loss`.
            pixel_weight: As in :meth:`loss`.

        Returns:
            (B, C, H, W) in the target's pixel space. Cells that no mixed image hides
            show the true pixels; there are none with a mask that the batch shares if
            all images are reconstructed.

        Raises:
            UserError: If the target is not the pixels.
        """
        if self.hog is not None:
            raise UserError(
                "target='hog' predicts gradients, not an image: there is no "
                'reconstruction to show.'
            )
        ownership = self._ownership(mask, target)
        weights = None if pixel_weight is None else self._cell_weights(pixel_weight)
        truth = self.construct_target(target, weights)
        cells = ownership.regroup(pred.float(), truth)
        if self.norm_pix:
            mean, deviation = self._statistics(self.patchify(target.float()), weights)
            cells = cells * deviation + mean
        return self.unpatchify(cells, tuple(target.shape[2:]))

    def construct_target(self, images: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cut images (B, C, H, W) into target cells, float32.

        Args:
            images: (B, C, H, W).
            weights: Weights of the pixels, cut as the images are. Where they are 0 the
                target is 0. Defaults to None: all the same.

        Returns:
            (B, h * w, target_dims), pixels normalised with ``norm_pix``.
        """
        if self.hog is not None:
            # Autocast would compute the gradients in low precision.
            device = images.device.type
            with torch.autocast('cpu' if device == 'meta' else device, enabled=False):
                maps = self.hog(images.float())
            return self._cut(maps, self.stride // self.hog.pool)
        cells = self.patchify(images.float())
        if self.norm_pix:
            mean, deviation = self._statistics(cells, weights)
            cells = (cells - mean) / deviation
        return cells if weights is None else torch.where(weights > 0, cells, 0)

    def patchify(self, images: Tensor) -> Tensor:
        """Cut images into cells.

        Args:
            images: (B, C, H, W).

        Returns:
            (B, h * w, stride ** 2 * C), pixels row-major, channels last.
        """
        return self._cut(images, self.stride)

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

    @property
    def mean_loss(self) -> float | None:
        """Loss of predicting the mean of each cell; None if it is unknown."""
        squares = type(self.loss_module) is PixelReconstructionLoss and isinstance(
            self.loss_module.penalty, torch.nn.MSELoss
        )
        return 1.0 if squares and self.norm_pix and self.hog is None else None

    @property
    def target_dims(self) -> int:
        """Numbers to predict for each cell."""
        if self.hog is None:
            return self.stride**2 * self.in_channels
        return (self.stride // self.hog.pool) ** 2 * self.in_channels * self.hog.nbins

    @staticmethod
    def _cut(maps: Tensor, side: int) -> Tensor:
        """Cut maps (B, C, H, W) into squares, (B, squares, side ** 2 * C)."""
        cells = maps.unflatten(3, (-1, side)).unflatten(2, (-1, side))
        return cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _ownership(
        self, mask: Tensor | TokenOwnership, images: Tensor
    ) -> TokenOwnership:
        grid = tuple(side // self.stride for side in images.shape[2:])
        return TokenOwnership.of(mask, len(images), grid, images.device)

    def _cell_weights(self, pixel_weight: Tensor) -> Tensor:
        """Weights (B, H, W) for each value of the cells, as :meth:`patchify` cuts."""
        maps = pixel_weight.float().unsqueeze(1).expand(-1, self.in_channels, -1, -1)
        return self.patchify(maps)

    def _statistics(
        self, cells: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if weights is None:
            variance, mean = torch.var_mean(cells, dim=-1, keepdim=True)
        else:
            cells = torch.where(weights > 0, cells, 0)
            total = weights.sum(-1, keepdim=True).clamp(min=1e-12)
            mean = (weights * cells).sum(-1, keepdim=True) / total
            freedom = total - weights.square().sum(-1, keepdim=True) / total
            squares = (weights * (cells - mean).square()).sum(-1, keepdim=True)
            # A single value has no deviation, and freedom 0 up to rounding.
            variance = squares / torch.maximum(freedom, 1e-4 * total)
        return mean, (variance + self.EPS).sqrt()
