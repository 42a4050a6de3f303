"""The MixMIM algorithm: mix, encode, guess, compare."""

from __future__ import annotations

import inspect
import random

import torch
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError, as_pair

from ..utils import TokenOwnership


@MODELS.register_module()
class MixMIM(BaseSelfSupervisor):
    """Mixed and masked image modelling.

    Source: MixMAE (arXiv 2205.13137). Types of the parts resolve in the scope
    ``mmmixmim`` whatever the default scope is. Sizes of neck and head follow
    from the backbone.

    Args:
        backbone: Config of an encoder, or the encoder. It takes images and a
            mask, returns a tuple of maps, and has the attributes ``stride``
            (pixels), ``img_size``, ``in_channels`` and ``out_channels``.
        neck: Config of the decoder, or the decoder. Defaults to
            ``dict(type='MixMIMPretrainDecoder')``.
        head: Config of the head, or the head. Defaults to
            ``dict(type='MixMIMPretrainHead')``.
        mask_ratio: Fraction of the cells of an image that its partner covers,
            rounded down to whole cells. Defaults to 0.5.
        range_mask_ratio: Each batch adds a uniform number between 0 and this
            to ``mask_ratio``, as the authors' code. Defaults to 0.
        data_preprocessor: Config of the data preprocessor, of type
            ``SelfSupDataPreprocessor`` by default.
        init_cfg: MMEngine's initialisation config.
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
        ratios = (mask_ratio, range_mask_ratio)
        if not all(isinstance(ratio, (int, float)) for ratio in ratios) or not (
            range_mask_ratio >= 0 and 0 < mask_ratio < 1 - range_mask_ratio
        ):
            raise UserError(
                'mask_ratio, and mask_ratio + range_mask_ratio, must lie between 0 and '
                f'1, both excluded; got mask_ratio={mask_ratio!r} and '
                f'range_mask_ratio={range_mask_ratio!r}.'
            )
        with MODELS.switch_scope_and_registry('mmmixmim') as registry:
            if isinstance(backbone, dict):
                backbone = registry.build(backbone)
            _check_encoder(backbone)
            sizes = dict(
                embed_dim=backbone.out_channels[-1],
                in_chans=backbone.in_channels,
                encoder_stride=backbone.stride,
                patch_size=backbone.stride,
                img_size=backbone.img_size,
            )
            super().__init__(
                backbone=backbone,
                neck=_complete(neck, 'MixMIMPretrainDecoder', sizes),
                head=_complete(head, 'MixMIMPretrainHead', sizes),
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        self.mask_ratio = mask_ratio
        self.range_mask_ratio = range_mask_ratio

    def loss(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Reconstruction loss of a batch.

        Args:
            inputs: Images (B, C, H, W). Image i is mixed with image B - 1 - i.
            data_samples: Not used.
            mask: Cells (1 or B, H / stride, W / stride), 1 where the partner
                shows. Defaults to None: drawn at random, one for the batch.

        Returns:
            ``dict(loss=scalar)``.
        """
        ownership = self.ownership(inputs, mask)
        pred = self.neck(self.backbone(inputs, ownership), ownership)
        return dict(loss=self.head.loss(pred, inputs, ownership))

    @torch.no_grad()
    def reconstruct(
        self, inputs: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Mix images and guess what is hidden.

        Args:
            inputs: As in :meth:`loss`.
            mask: As in :meth:`loss`.

        Returns:
            ``mask``, bool (1 or B, H / stride, W / stride); ``mixed``, the mixed
            images; and ``reconstruction``, each image put together from guesses
            alone. The latter two are (B, C, H, W) in the input's pixel space.
        """
        ownership = self.ownership(inputs, mask)
        pred = self.neck(self.backbone(inputs, ownership), ownership)
        mixed = ownership.mix(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return dict(
            mask=ownership.mask,
            mixed=mixed,
            reconstruction=self.head.reconstruct(pred, inputs, ownership),
        )

    def ownership(self, inputs: Tensor, mask: Tensor | None = None) -> TokenOwnership:
        """Who owns each token of the batch: from ``mask``, else at random."""
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
        hidden = int(cells * ratio)
        return TokenOwnership.random(grid, hidden, inputs.device)


def _check_encoder(backbone: nn.Module) -> None:
    """Refuse an encoder that cannot be pretrained, by what it lacks."""
    for name in ('stride', 'img_size', 'in_channels', 'out_channels'):
        if not hasattr(backbone, name):
            raise UserError(
                f'{type(backbone).__name__} cannot be pretrained by MixMIM: it has no '
                f'attribute {name}. Use mmmixmim.MixMIMTransformer, or an encoder with '
                'the interface that the docstring of MixMIM gives.'
            )
    last = len(backbone.out_channels) - 1
    if getattr(backbone, 'out_indices', (last,)) != (last,):
        raise UserError(
            'Pretraining takes the last map alone: leave out_indices out of the '
            f'backbone, got {backbone.out_indices}.'
        )


def _complete(part: dict | nn.Module | None, default: str, sizes: dict):
    """Fill in the sizes that follow from the backbone; refuse others.

    Args:
        part: Config of the neck or head, or the module.
        default: Its type if the config names none.
        sizes: Values by argument name; those that the type takes are used.
    """
    if isinstance(part, nn.Module):
        return part
    part = dict(type=default) | dict(part or {})
    cls = MODELS.get(part['type']) if isinstance(part['type'], str) else part['type']
    arguments = inspect.signature(cls).parameters if cls else {}
    for name, size in sizes.items():
        if name not in arguments:
            continue
        given = part.setdefault(name, size)
        if isinstance(size, tuple):
            given = as_pair(name, given)
        if given != size:
            raise UserError(
                f'{part["type"]} got {name}={part[name]}, but the backbone has {size}: '
                f'leave {name} out and it is taken from the backbone.'
            )
    return part
