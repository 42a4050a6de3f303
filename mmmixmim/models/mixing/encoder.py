"""What an encoder must offer to be pretrained by MixMIM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from mmmixmim.validation import UserError

from .ownership import TokenOwnership


class MixingEncoder(Protocol):
    """A hierarchical encoder that mixes images.

    The ownership is checked by the algorithm. It does the work of mixing: see ``mix``,
    ``same_owner``, ``split``, ``merge`` and ``pool`` of :class:`TokenOwnership`.

    Attributes:
        stride: Side in pixels of the cell behind each token of the last map.
        img_size: Height and width in pixels that the encoder is made for.
        in_channels: Channels of the images.
        out_channels: Channels of each stage's map. The embedding, where images are
            mixed, has as many as the first.
    """

    stride: int
    img_size: tuple[int, int]
    in_channels: int
    out_channels: list[int]

    def __call__(
        self, images: Tensor, ownership: TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if an ownership is given.

        Tokens of different owners must not exchange information if the ownership is
        ``isolated``.

        Args:
            images: (B, in_channels, H, W), where the stride divides H and W if there is
                an ownership.
            ownership: Who owns each token. None for plain images.

        Returns:
            Maps (B, C, h, w); the last one has one token per cell.
        """


def check_encoder_attributes(encoder: nn.Module) -> None:
    """Raise a UserError that names what ``encoder`` lacks to be pretrained."""
    for name in MixingEncoder.__annotations__:
        if not hasattr(encoder, name):
            raise UserError(
                f'{type(encoder).__name__} cannot be pretrained by MixMIM: it has no '
                f'attribute {name}. Use mmmixmim.MixMIMTransformer, or an encoder that '
                'follows mmmixmim.models.mixing.MixingEncoder.'
            )
    last = len(encoder.out_channels) - 1
    if getattr(encoder, 'out_indices', (last,)) != (last,):
        raise UserError(
            'Pretraining uses the last map only: leave out_indices out of the '
            f'backbone, got {encoder.out_indices}.'
        )


def check_encoder(
    build: Callable[[], nn.Module],
    stock: Callable[[], nn.Module] | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Check that an encoder can be pretrained by MixMIM.

    - Nothing of the partner reaches the tokens of an image, bit by bit: with masks that
      the batch shares and masks of each image, in odd batches, under autocast.
    - Without an ownership it computes what the stock class does, bit by bit, and has
      the same parameters.
    - Every parameter that can be trained gets a gradient.
    - A compiled forward pass agrees.

    Args:
        build: Builds the encoder. A small one is enough, and it should not draw random
            numbers in evaluation mode.
        stock: Builds the class that it extends, with the same arguments. Defaults to
            None: there is none.
        size: Height and width in pixels of the test images. Defaults to None:
            ``img_size``, with one cell more in width.

    Raises:
        UserError: At the first check that fails. A leak is named by the first module
            whose output changes with the partner.
    """
    encoder = build()
    encoder.eval()
    check_encoder_attributes(encoder)
    stride = encoder.stride
    if size is None:
        size = (encoder.img_size[0], encoder.img_size[1] + stride)
    grid = tuple(side // stride for side in size)
    images = torch.randn(3, encoder.in_channels, *size)
    for masks in (1, 3):
        ownership = TokenOwnership(_mixed_mask(masks, grid))
        for precision in (torch.float32, torch.bfloat16):
            _check_leaks(encoder, images, ownership, precision)
    if stock is not None:
        _check_stock(encoder, stock(), images)
    ownership = TokenOwnership(_mixed_mask(1, grid))
    _check_gradients(build(), images, ownership)
    compiled = torch.compile(encoder, backend='aot_eager')
    with torch.no_grad():
        found, wanted = compiled(images, ownership)[-1], encoder(images, ownership)[-1]
    if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
        raise UserError(
            f'{type(encoder).__name__} computes something else when it is compiled: '
            f'maps differ by up to {(found - wanted).abs().max():.2g}.'
        )


def _mixed_mask(masks: int, grid: tuple[int, int]) -> Tensor:
    """Random cells, at least one of each owner in every mask."""
    mask = torch.rand(masks, *grid) < 0.5
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    return mask


@torch.no_grad()
def _check_leaks(
    encoder: nn.Module, images: Tensor, ownership: TokenOwnership, dtype: torch.dtype
) -> None:
    """Change every partner, and compare what belongs to the image itself."""
    name = type(encoder).__name__
    low = dtype != torch.float32
    mask = ownership.mask.expand(len(images), -1, -1)
    # The middle image of an odd batch is its own partner, so it stays.
    for i in (0, len(images) - 1):
        changed = images.clone()
        changed[len(images) - 1 - i].normal_()
        records = []
        for batch in (images, changed):
            with torch.autocast('cpu', dtype, enabled=low), _Recorder(encoder) as seen:
                maps = encoder(batch, ownership)
            records.append((maps[-1], seen))
        (before, modules), (after, others) = records
        if before.shape[2:] != mask.shape[1:]:
            raise UserError(
                f'The last map of {name} has {tuple(before.shape[2:])} tokens, but the '
                f'images have {tuple(mask.shape[1:])} cells: stride must be the side '
                'of a cell.'
            )
        own = ~mask[i]
        leaked = (before[i] != after[i]).any(0) & own
        if leaked.any():
            where = modules.first_leak(others, i, own)
            raise UserError(
                f'{name} lets information of the partner reach {int(leaked.sum())} of '
                f'the {int(own.sum())} cells that an image owns. The first module '
                f'whose output there depends on the partner is {where}: tokens of '
                'different owners must not meet in it.'
            )


class _Recorder:
    """Outputs of all modules inside an encoder that are maps or tokens of maps."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.outputs: list[tuple[str, Tensor]] = []

    def __enter__(self) -> _Recorder:
        self.hooks = [
            module.register_forward_hook(self._record(name))
            for name, module in self.encoder.named_modules()
            if name
        ]
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()

    def _record(self, name: str) -> Callable:
        def record(module: nn.Module, args: tuple, output) -> None:
            if isinstance(output, tuple):
                output = output[0]
            if isinstance(output, Tensor):
                self.outputs.append((name, output))

        return record

    def first_leak(self, other: _Recorder, image: int, own: Tensor) -> str:
        """The first module in which more tokens differ than the partner owns.

        Tokens are counted, since an encoder may order them as it likes.
        """
        for (name, a), (_, b) in zip(self.outputs, other.outputs, strict=True):
            a, b = (_as_tokens(each, tuple(own.shape)) for each in (a, b))
            if a is None or image >= len(a):
                continue
            differing = int((a[image] != b[image]).any(-1).sum())
            if differing * own.numel() > int((~own).sum()) * a.shape[1]:
                return name
        return 'not one of its modules but its own forward'


def _as_tokens(output: Tensor, grid: tuple[int, int]) -> Tensor | None:
    """View tokens or a map as (B, N, C), None if N is no multiple of the cells."""
    h, w = grid
    if output.ndim == 3 and output.shape[1] % (h * w) == 0:
        return output
    if output.ndim != 4:
        return None
    for maps in (output, output.permute(0, 2, 3, 1)):
        height, width = maps.shape[1:3]
        if height % h == width % w == 0 and height // h == width // w > 0:
            return maps.flatten(1, 2)
    return None


@torch.no_grad()
def _check_stock(encoder: nn.Module, stock: nn.Module, images: Tensor) -> None:
    name, other = type(encoder).__name__, type(stock).__name__
    own, theirs = encoder.state_dict(), stock.state_dict()
    odd = own.keys() ^ theirs.keys()
    if odd:
        raise UserError(f'{min(odd)} is not a parameter of both {name} and {other}.')
    stock.load_state_dict(own, strict=False)  # Swin V2 never loads its buffers
    stock.eval()
    for found, wanted in zip(encoder(images), stock(images), strict=True):
        if not torch.equal(found, wanted):
            raise UserError(
                f'Without an ownership {name} does not compute what {other} does: maps '
                f'differ by up to {(found - wanted).abs().max():.2g}.'
            )


def _check_gradients(
    encoder: nn.Module, images: Tensor, ownership: TokenOwnership
) -> None:
    encoder.train()
    encoder(images, ownership)[-1].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad and (
            parameter.grad is None or not parameter.grad.any()
        ):
            raise UserError(
                f'{name} of {type(encoder).__name__} gets no gradient: freeze it with '
                'requires_grad=False, or use it.'
            )
