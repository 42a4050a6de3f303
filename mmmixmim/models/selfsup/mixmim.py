"""The MixMIM algorithm: mix, encode, decode, compare."""

from __future__ import annotations

import inspect
import random

import torch
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair

from ..mixing import TokenOwnership, check_encoder_attributes


@MODELS.register_module()
class MixMIM(BaseSelfSupervisor):
    """Mixed and masked image modelling.

    1. Draw a mask of cells, half of them 1, and mix each image with its partner: where
       the mask is 1, the partner's tokens replace the image's own.
    2. Encode the mixed tokens once. Tokens attend to tokens of their own image only.
    3. Decode twice, each time with a mask token in place of one of the two images.
    4. Compare each prediction with the pixels that its mixture hides.

    Source: MixMAE (arXiv 2205.13137), section 3. The types of the parts resolve in the
    scope ``mmmixmim``, whatever the default scope is. Sizes of neck and head follow
    from the backbone.

    Args:
        backbone: Config of an encoder, or the encoder. What it must offer is said by
            :class:`~mmmixmim.models.mixing.MixingEncoder`.
        neck: Config of the decoder, or the decoder. Defaults to
            ``dict(type='MixMIMPretrainDecoder')``.
        head: Config of the head, or the head. Defaults to
            ``dict(type='MixMIMPretrainHead')``.
        mask_ratio: Share of an image's cells that its partner covers, rounded down to
            whole cells. Defaults to 0.5.
        range_mask_ratio: Every batch adds a uniform number between 0 and this to
            ``mask_ratio``, as the authors' code does. Defaults to 0.
        data_preprocessor: Config of the data preprocessor, by default of type
            ``SelfSupDataPreprocessor``.
        init_cfg: MMEngine's initialisation config.

    Raises:
        UserError: If a ratio is out of its range, the encoder cannot be pretrained, or
            a size of neck or head differs from the backbone's.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        mask_ratio: float = 0.5,
        range_mask_ratio: float = 0.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        _check_ratios(mask_ratio, range_mask_ratio)
        with MODELS.switch_scope_and_registry('mmmixmim') as registry:
            if isinstance(backbone, dict):
                backbone = registry.build(backbone)
            check_encoder_attributes(backbone)
            sizes = dict(
                encoder_channels=backbone.out_channels[-1],
                in_channels=backbone.in_channels,
                stride=backbone.stride,
                img_size=backbone.img_size,
            )
            super().__init__(
                backbone=backbone,
                neck=_with_sizes(neck, 'MixMIMPretrainDecoder', sizes),
                head=_with_sizes(head, 'MixMIMPretrainHead', sizes),
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        self.mask_ratio = mask_ratio
        self.range_mask_ratio = range_mask_ratio

    def loss(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        mask: Tensor | TokenOwnership | None = None,
    ) -> dict[str, Tensor]:
        """Compute the reconstruction loss of a batch.

        Args:
            inputs: Images (B, C, H, W). Image i is mixed with image B - 1 - i.
            data_samples: Not used.
            mask: Cells (1 or B, H / stride, W / stride), 1 where the partner shows, or
                the :class:`TokenOwnership` made of them. Defaults to None: drawn at
                random, one mask for the batch.

        Returns:
            ``dict(loss=scalar)``.
        """
        ownership = self.ownership(inputs, mask)
        pred = self.neck(self.backbone(inputs, ownership), ownership)
        return dict(loss=self.head.loss(pred, inputs, ownership))

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, mask: Tensor | TokenOwnership | None = None
    ) -> dict[str, Tensor]:
        """Mix images and reconstruct what is hidden.

        Args:
            inputs: See :meth:`loss`.
            mask: See :meth:`loss`.

        Returns:
            ``mask``, bool (1 or B, H / stride, W / stride); ``mixed``, the mixed
            images; and ``reconstruction``, each image assembled from predictions only.
            The latter two are (B, C, H, W) in the pixel space of the inputs.
        """
        ownership = self.ownership(inputs, mask)
        pred = self.neck(self.backbone(inputs, ownership), ownership)
        mixed = ownership.mix(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return dict(
            mask=ownership.mask,
            mixed=mixed,
            reconstruction=self.head.reconstruct(pred, inputs, ownership),
        )

    def ownership(
        self, inputs: Tensor, mask: Tensor | TokenOwnership | None = None
    ) -> TokenOwnership:
        """Tell who owns each token of a batch: from ``mask``, else at random.

        Raises:
            UserError: If a random mask would hide no cell.
        """
        if mask is not None:
            return TokenOwnership.of(mask, inputs.device)
        grid = tuple(side // self.backbone.stride for side in inputs.shape[2:])
        cells = grid[0] * grid[1]
        if cells and int(cells * self.mask_ratio) == 0:
            raise UserError(
                f'mask_ratio {self.mask_ratio:g} hides none of the {cells} cells of a '
                f'{grid[0]}x{grid[1]} grid: at least one cell must be hidden and one '
                f'visible. Use larger images (a cell is {self.backbone.stride} pixels '
                'wide) or another mask_ratio.'
            )
        ratio = self.mask_ratio
        if self.range_mask_ratio:
            ratio += random.uniform(0, self.range_mask_ratio)
        return TokenOwnership.random(grid, int(cells * ratio), inputs.device)


def _check_ratios(mask_ratio: float, range_mask_ratio: float) -> None:
    ratios = (mask_ratio, range_mask_ratio)
    if not all(isinstance(ratio, (int, float)) for ratio in ratios) or not (
        range_mask_ratio >= 0 and 0 < mask_ratio < 1 - range_mask_ratio
    ):
        raise UserError(
            'mask_ratio, and mask_ratio + range_mask_ratio, must lie between 0 and 1, '
            f'both excluded; got mask_ratio={mask_ratio!r} and '
            f'range_mask_ratio={range_mask_ratio!r}.'
        )


def _with_sizes(part: dict | nn.Module | None, default: str, sizes: dict):
    """Complete the config of a neck or head with the sizes of the backbone.

    Args:
        part: The config, or the module, which is returned as it is.
        default: Type of a config that names none.
        sizes: Values by argument name. Those that the type takes are used.

    Raises:
        UserError: If the config has another size than the backbone.
    """
    if isinstance(part, nn.Module):
        return part
    part = dict(type=default) | dict(part or {})
    cls = MODELS.get(part['type']) if isinstance(part['type'], str) else part['type']
    if cls is None:  # the registry says so when it builds the part
        return part
    for old, new in getattr(cls.__init__, 'renamed', {}).items():
        if old in part and new not in part:
            part[new] = part.pop(old)
    for name in inspect.signature(cls).parameters.keys() & sizes.keys():
        size = sizes[name]
        given = part.setdefault(name, size)
        if isinstance(size, tuple):
            given = as_pair(name, given)
        if given != size:
            raise UserError(
                f'{part["type"]} got {name}={part[name]}, but the backbone has {size}: '
                f'leave {name} out, it follows from the backbone.'
            )
    return part
