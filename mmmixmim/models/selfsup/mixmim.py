"""The MixMIM algorithm: mix, encode, decode, compare."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence

import torch
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    UserError,
    as_pair,
    check_floats,
    check_image,
    check_image_size,
    check_int_between,
)

from ..mixing import TokenOwnership, build_filling, check_encoder_attributes
from ..mixing.encoder import check_maps
from .held_out import measure
from .options import (
    check_hidden,
    check_options,
    check_ratios,
    check_single_image,
    decodes_cells,
    with_sizes,
)
from .pixel_weight import (
    blank_unweighted,
    check_pixel_weight,
    collect_pixel_weight,
)

_ALONE = (
    'A batch of one image: images are mixed within the batch of a process, so this one '
    'is mixed with itself and hides nothing but its own other half. Use at least 2 '
    'images per process; accumulative_counts of the optimizer wrapper makes up for a '
    'small batch.'
)


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

    Other values of ``num_images``, ``filling``, ``isolate`` and ``reconstruct`` give
    the paper's ablations, or SimMIM (arXiv 2111.09886), with mmpretrain's decoder and
    head as they are.

    Args:
        backbone: Config of an encoder, or the encoder. What it must offer is said by
            :class:`~mmmixmim.models.mixing.MixingEncoder`.
        neck: Config of the decoder, or the decoder. Defaults to
            ``dict(type='MixMIMPretrainDecoder')``. A decoder without an ownership, as
            mmpretrain's ``SimMIMLinearDecoder``, gets the last map alone.
        head: Config of the head, or the head. Defaults to
            ``dict(type='MixMIMPretrainHead')``.
        mask_ratio: Share of an image's cells that are hidden, rounded down to whole
            cells. Defaults to None: (K - 1) / K, which is 0.5 for two images.
        range_mask_ratio: Every batch adds a uniform number between 0 and this to
            ``mask_ratio``, as the authors' code does. Defaults to 0.
        num_images: Number K of images in a mixture, 2 to 4. Image i is mixed with the
            images i + j * B / K, so K must divide the batch size if it is more than 2.
            The decoder runs K passes. Defaults to 2.
        filling: What hidden cells show: 'partner', 'mask_token' (learned), 'zeros',
            'noise' or 'shuffled_cells' (visible cells of the same image). Defaults to
            'partner'.
        isolate: Whether tokens of different owners must not exchange information in
            the encoder. Defaults to None: True with partners, False with another
            filling, which no token would see otherwise.
        reconstruct: 'all' images of a mixture, or 'own': image i itself. Defaults to
            None: 'all' with partners, 'own' with another filling.
        data_preprocessor: Config of the data preprocessor, by default of type
            ``SelfSupDataPreprocessor``.
        init_cfg: MMEngine's initialisation config.

    Raises:
        UserError: If a value is out of its range, values do not go together, the
            encoder cannot be pretrained, or a size of neck or head differs from the
            backbone's.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        mask_ratio: float | None = None,
        range_mask_ratio: float = 0.0,
        num_images: int = 2,
        filling: str = 'partner',
        isolate: bool | None = None,
        reconstruct: str | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        check_int_between('num_images', num_images, 2, 4)
        if mask_ratio is None:
            mask_ratio = (num_images - 1) / num_images
        check_ratios(mask_ratio, range_mask_ratio)
        partners = filling == 'partner'
        if not partners:
            check_single_image(filling, num_images, isolate, reconstruct)
        if reconstruct not in (None, 'all', 'own'):
            raise UserError(f"reconstruct must be 'all' or 'own', got {reconstruct!r}.")
        with MODELS.switch_scope_and_registry('mmmixmim') as registry:
            if isinstance(backbone, dict):
                backbone = registry.build(backbone)
            check_encoder_attributes(backbone)
            sizes = dict(
                encoder_channels=backbone.out_channels[-1],
                in_channels=backbone.in_channels,
                stride=backbone.stride,
                img_size=as_pair('img_size', backbone.img_size),
            )
            head = with_sizes(head, 'MixMIMPretrainHead', sizes)
            if isinstance(head, dict):
                head = registry.build(head)
            if hasattr(head, 'target_dims'):
                sizes['target_dims'] = head.target_dims
            super().__init__(
                backbone=backbone,
                neck=with_sizes(neck, 'MixMIMPretrainDecoder', sizes),
                head=head,
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        self.mask_ratio = mask_ratio
        self.range_mask_ratio = range_mask_ratio
        self.num_images = num_images
        self.filling = build_filling(filling, backbone.out_channels[0])
        self.isolate = partners if isolate is None else isolate
        self.passes = num_images if partners and reconstruct != 'own' else 1
        alone = not partners and not self.isolate
        self.per_cell = decodes_cells(self.neck, self.head, alone)

    @property
    def mixture_size(self) -> int:
        """Number of images that are mixed with one another: K, or 1 with a filling.

        ``num_images``, and ``images`` of :class:`TokenOwnership` and
        :class:`MixtureGroups`, are K whatever the filling.
        """
        return self.num_images if self.filling is None else 1

    def forward(self, inputs, data_samples=None, mode: str = 'tensor'):
        """Run mode 'loss', 'predict' or, for features of plain images, 'tensor'."""
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        return super().forward(inputs, data_samples, mode)

    def loss(
        self,
        inputs: Tensor,
        data_samples: list | None = None,
        mask: Tensor | TokenOwnership | None = None,
    ) -> dict[str, Tensor]:
        """Compute the reconstruction loss of a batch.

        Args:
            inputs: Images (B, C, H, W). Image i is mixed with image B - 1 - i.
            data_samples: Samples that may have a ``pixel_weight``, float (H, W), not
                negative: how much each pixel counts in the target's statistics and in
                the loss. The encoder sees 0 where it is 0. Defaults to None: all
                pixels count the same.
            mask: Cells (1 or B, H / stride, W / stride), 1 where the partner shows, or
                the :class:`TokenOwnership` made of them. Defaults to None: drawn at
                random, one mask for the batch.

        Returns:
            ``dict(loss=scalar)``.
        """
        alone = len(inputs) == 1 and self.training and self.filling is None
        if alone and not torch.compiler.is_compiling():
            warnings.warn(_ALONE, stacklevel=2)
        weight = collect_pixel_weight(data_samples, inputs)
        inputs = blank_unweighted(inputs, weight)
        ownership = self.ownership(inputs, mask)
        pred = self.encode_decode(inputs, ownership)
        return dict(loss=self.compare(pred, inputs, ownership, weight))

    @torch.no_grad()
    def predict(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: list[DataSample] | None = None,
    ) -> list[DataSample]:
        """Measure loss and features of held-out images, the same in every run.

        Nothing depends on the global random state nor on the other groups of the batch.
        Only the filling 'noise' or 'shuffled_cells' is drawn for the batch as a whole.

        Args:
            inputs: K tensors (M, C, H, W), as of a
                :class:`~mmmixmim.datasets.MixtureGroups`: image j of each are mixed
                with one another. A single tensor (B, C, H, W) is divided into groups
                in its order, and images of the start fill the last group.
            data_samples: One for each group, whose ``position`` seeds its mask, and
                whose ``members`` may have a ``pixel_weight``, see :meth:`loss`.
                Defaults to None: masks are seeded by the order.

        Returns:
            For each group, or image of a single tensor, a sample with
            ``reconstruction_loss``, the loss of the group; ``mean_loss``, that of
            predicting the mean of each cell, if the head's loss and target are the
            default ones; and ``features``, of each stage the pooled features (K, C) of
            the plain images, or (1, C).
        """
        return measure(self, inputs, data_samples)

    @torch.no_grad()
    def reconstruct(
        self,
        inputs: Tensor,
        mask: Tensor | TokenOwnership | None = None,
        pixel_weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Mix images and reconstruct what is hidden.

        Args:
            inputs: See :meth:`loss`.
            mask: See :meth:`loss`.
            pixel_weight: How much each pixel counts, (B, H, W), see :meth:`loss`.
                Defaults to None: all the same.

        Returns:
            ``mask``, (1 or B, H / stride, W / stride), bool or for more than two images
            their numbers; ``mixed``, the mixed images, in which hidden cells are grey
            (0) if the filling is no image; and ``reconstruction``, each image assembled
            from predictions, and of its own pixels where none was made. The latter two
            are (B, C, H, W) in the pixel space of the inputs.

        Raises:
            UserError: If the target is not the pixels, or ``mask`` or ``pixel_weight``
                does not fit the images.
        """
        if pixel_weight is not None:
            check_pixel_weight(pixel_weight, inputs)
        inputs = blank_unweighted(inputs, pixel_weight)
        ownership = self.ownership(inputs, mask)
        pred = self.encode_decode(inputs, ownership)
        hidden = ownership.at(*inputs.shape[2:]).unsqueeze(1) != 0
        if self.filling is None:
            mixed = ownership.mix(inputs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        else:
            mixed = inputs.masked_fill(hidden, 0)
        if self.per_cell:
            extra = () if pixel_weight is None else (pixel_weight,)
            reconstruction = self.head.reconstruct(pred, inputs, ownership, *extra)
        else:
            reconstruction = torch.where(hidden, pred, inputs)
        return dict(mask=ownership.mask, mixed=mixed, reconstruction=reconstruction)

    def ownership(
        self, inputs: Tensor, mask: Tensor | TokenOwnership | None = None
    ) -> TokenOwnership:
        """Tell who owns each token of a batch: from ``mask``, else at random.

        Raises:
            UserError: If the encoder's stride does not divide the images, ``mask`` does
                not fit them, or a random mask would hide no cell.
        """
        stride = self.backbone.stride
        check_image(inputs, self.backbone.in_channels)
        check_image_size(tuple(inputs.shape[2:]), stride)
        grid = tuple(side // stride for side in inputs.shape[2:])
        options = dict(
            images=self.num_images,
            filling=self.filling,
            isolated=self.isolate,
            passes=self.passes,
        )
        if mask is None:
            hidden = self.count_hidden(grid)
            mask = TokenOwnership.random(grid, hidden, inputs.device, **options)
        elif not isinstance(mask, TokenOwnership):
            mask = TokenOwnership(mask, **options)
            check_hidden(mask)
        else:
            check_options(mask, options)
        return TokenOwnership.of(mask, len(inputs), grid, inputs.device)

    def encode_decode(self, inputs: Tensor, ownership: TokenOwnership) -> Tensor:
        """Mix and encode images, and predict what each pass of the decoder hides.

        Returns:
            What the neck returns: :class:`MixMIMPretrainDecoder` gives for each cell
            the pixels, or target, of an image that it hides.
        """
        check_floats(inputs)
        # A compiler refuses to set attributes inside of activation checkpointing.
        ownership.mixed = torch.compiler.is_compiling()
        maps = self.backbone(inputs, ownership)
        if not ownership.mixed:
            raise UserError(
                f'{type(self.backbone).__name__} did not call mix() of the ownership '
                'that it was given: call it behind the embedding, see '
                'docs/extending.md, and run check_encoder.'
            )
        check_maps(self.backbone, maps, len(inputs), ownership.grid)
        return self.neck(maps, ownership) if self.per_cell else self.neck(maps[-1])

    def compare(
        self,
        pred: Tensor,
        inputs: Tensor,
        ownership: TokenOwnership,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of what :meth:`encode_decode` returns.

        Raises:
            UserError: If pixels have weights and the head takes none.
        """
        if self.per_cell:
            extra = () if weight is None else (weight,)
            return self.head.loss(pred, inputs, ownership, *extra)
        if weight is not None:
            raise UserError(
                f'{type(self.head).__name__} takes no weights of pixels: use '
                'MixMIMPretrainHead, or images without no_data and masks.'
            )
        patches = (side // self.head.patch_size for side in inputs.shape[2:])
        hidden = ownership.at(*patches).expand(len(inputs), -1, -1)
        # In float16 the number of hidden pixels would overflow.
        return self.head.loss(pred.float(), inputs, hidden.float())

    def count_hidden(self, grid: tuple[int, int], added: float | None = None) -> int:
        """Count the cells to hide, of those in a grid.

        Args:
            grid: Rows and columns of cells.
            added: What is added to ``mask_ratio``. Defaults to None: drawn at random
                from ``range_mask_ratio``.

        Raises:
            UserError: If the ratio hides too few cells of a grid so small.
        """
        cells = grid[0] * grid[1]
        hidden = int(cells * self.mask_ratio)
        if hidden < self.num_images - 1:
            raise UserError(
                f'mask_ratio {self.mask_ratio:g} hides {hidden} of the {cells} cells '
                f'of a {grid[0]}x{grid[1]} grid, and {self.num_images} mixed images '
                f'need at least {self.num_images - 1}. Use larger images (a cell is '
                f'{self.backbone.stride} pixels wide) or another mask_ratio.'
            )
        if added is None:
            added = 0.0
            if self.range_mask_ratio:
                added = random.uniform(0, self.range_mask_ratio)
        return int(cells * (self.mask_ratio + added))
