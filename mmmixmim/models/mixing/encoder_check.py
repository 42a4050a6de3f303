"""Check that an encoder can be pretrained by MixMIM, by running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmmixmim.validation import UserError, as_pair, check_image_size

from .encoder import check_encoder_attributes, check_maps
from .filling import Filling
from .ownership import TokenOwnership


def check_encoder(
    build: Callable[[], nn.Module],
    stock: Callable[[], nn.Module] | None = None,
    size: tuple[int, int] | None = None,
) -> None:
    """Check that an encoder can be pretrained by MixMIM.

    - Its attributes, and the channels and sizes of its maps, agree.
    - Nothing of the partner reaches the tokens of an image, bit by bit: with masks that
      the batch shares and masks of each image, in odd batches, under autocast, in
      training mode, and with three images in a mixture. The partner's own tokens do
      depend on it.
    - Nothing of an image's own hidden cells reaches its mixture, as it does where
      patches overlap.
    - Tokens see others of their owner, and of all owners if they are not ``isolated``.
    - Without an ownership it computes what the stock class does, bit by bit, and has
      the same parameters.
    - Every parameter that can be trained gets a gradient.
    - A compiled forward pass agrees.

    Initial values may hide what a branch does: scales of zero, or a convolution that
    starts as an identity. So noise is added to all parameters.

    Args:
        build: Builds the encoder: its class, or a function without arguments. It may
            be small, but its maps must be so large that every branch runs, such as
            shifted windows.
        stock: Builds the class that it extends, with the same arguments. Defaults to
            None: there is none.
        size: Height and width in pixels of the test images. Defaults to None:
            ``img_size``, with one cell more in width.

    Raises:
        UserError: At the first check that fails. A leak is named by the first module
            whose output changes with the partner.
    """
    if isinstance(build, nn.Module) or not callable(build):
        raise UserError(
            'check_encoder builds the encoder several times: pass its class, or a '
            f'function, as lambda: MyEncoder(dim=32), got {type(build).__name__}.'
        )
    encoder = _add_noise(build())
    encoder.eval()
    check_encoder_attributes(encoder)
    stride = encoder.stride
    if size is None:
        size = _default_size(encoder)
    check_image_size(size, stride)
    grid = tuple(side // stride for side in size)
    images = torch.randn(3, encoder.in_channels, *size)
    ownership = TokenOwnership(_mixed_mask(1, grid))
    _check_maps(encoder, images, None, grid)
    _check_maps(encoder, images, ownership, grid)
    more = torch.randn(5, encoder.in_channels, *size)
    for batch, count, masks, precision, training in (
        (more, 2, 1, torch.float32, False),
        (images, 2, 3, torch.float32, False),
        (images, 3, 3, torch.float32, False),
        (images, 2, 1, torch.bfloat16, False),
        (images, 2, 1, torch.float32, True),
    ):
        encoder.train(training)
        mixed = TokenOwnership(_mixed_mask(masks, grid, count), count)
        _check_leaks(encoder, batch, mixed, precision)
    encoder.eval()
    _check_hidden(encoder, images, TokenOwnership(_mixed_mask(3, grid)))
    _check_flow(encoder, images, grid)
    _check_fillings(encoder, images, ownership.owners)
    if stock is not None:
        _check_stock(encoder, stock(), images)
    _check_gradients(_add_noise(build()), images, ownership)
    compiled = torch.compile(encoder, backend='aot_eager')
    with torch.no_grad():
        found, wanted = compiled(images, ownership)[-1], encoder(images, ownership)[-1]
    if not torch.allclose(found, wanted, rtol=1e-4, atol=1e-4):
        raise UserError(
            f'{type(encoder).__name__} computes something else when it is compiled: '
            f'maps differ by up to {(found - wanted).abs().max():.2g}.'
        )


@torch.no_grad()
def _add_noise(encoder: nn.Module) -> nn.Module:
    for parameter in encoder.parameters():
        if parameter.is_floating_point():
            noise = 0.02 * torch.randn_like(parameter)
            # Away from 0: a parameter may have to be positive.
            away = noise.abs() * parameter.sign()
            parameter.add_(torch.where(parameter == 0, noise, away))
    return encoder


@torch.no_grad()
def _default_size(encoder: nn.Module) -> tuple[int, int]:
    """``img_size``, with one cell more in width."""
    height, width = as_pair('img_size', encoder.img_size)
    size = (height, width + encoder.stride)
    try:
        encoder(torch.randn(3, encoder.in_channels, *size))
    except Exception as error:
        try:
            encoder(torch.randn(3, encoder.in_channels, height, width))
        except Exception:
            raise error from None  # the size is not to blame
        raise UserError(
            f'{type(encoder).__name__} does not take images of {size[0]}x{size[1]} '
            f'pixels: pass size=({height}, {width}) to check_encoder.'
        ) from error
    return size


def _mixed_mask(masks: int, grid: tuple[int, int], images: int = 2) -> Tensor:
    """Random cells, as many of each owner as possible."""
    cells = torch.arange(grid[0] * grid[1]) % images
    drawn = [cells[torch.randperm(len(cells))] for _ in range(masks)]
    return torch.stack(drawn).view(masks, *grid)


@torch.no_grad()
def _check_maps(
    encoder: nn.Module,
    images: Tensor,
    ownership: TokenOwnership | None,
    grid: tuple[int, int],
) -> None:
    maps = encoder(images) if ownership is None else encoder(images, ownership)
    # Of plain images a stock class may return pooled features.
    check_maps(encoder, maps, len(images), grid, pooled=ownership is None)


@torch.no_grad()
def _check_leaks(
    encoder: nn.Module, images: Tensor, ownership: TokenOwnership, dtype: torch.dtype
) -> None:
    """Change every image, and compare what belongs to the others."""
    name = type(encoder).__name__
    low = dtype != torch.float32
    numbers = torch.arange(len(images))
    shown = [ownership.partner(numbers, k) for k in range(ownership.images)]

    def run(batch: Tensor) -> tuple[Tensor, _Recorder]:
        # In training mode each pass draws the same drop paths.
        with (
            torch.random.fork_rng(devices=[]),
            torch.autocast('cpu', dtype, enabled=low),
            _Recorder(encoder, ownership) as seen,
        ):
            torch.manual_seed(0)
            return encoder(batch, ownership)[-1], seen

    before, modules = run(images)
    for number in range(len(images)):
        changed = images.clone()
        changed[number].normal_()
        after, others = run(changed)
        # The changed image's own mixture is last: there all modules before the mixture
        # see the change, so the first that leaks is harder to tell.
        for i in sorted(range(len(images)), key=lambda i: i == number):
            owners = ownership.owners[i % len(ownership.owners)]
            showing = torch.zeros_like(owners, dtype=torch.bool)
            for k, sources in enumerate(shown):
                showing |= (owners == k) & (sources[i] == number)
            differs = (before[i] != after[i]).any(0)
            leaked, rest = differs & ~showing, int((~showing).sum())
            if leaked.any():
                where = 'not found'
                if i != number:
                    where = modules.first_leak(others, i, ~showing)
                raise UserError(
                    f'{name} lets information of the partner reach {int(leaked.sum())} '
                    f'of the {rest} cells that an image owns. The first module whose '
                    f'output there depends on the partner is {where}: tokens of '
                    'different owners must not meet in it.'
                )
            if showing.any() and not (differs & showing).any():
                raise UserError(
                    f'{name} does not show the partner: where it owns the cells, the '
                    'maps do not depend on it. Call ownership.mix on the embedding.'
                )


@torch.no_grad()
def _check_hidden(
    encoder: nn.Module, images: Tensor, ownership: TokenOwnership
) -> None:
    """Change what the first mixture hides of its image: nothing there may change."""
    hidden = ownership.at(*images.shape[2:])[0] != 0
    changed = images.clone()
    changed[0] = torch.where(hidden, torch.randn_like(images[0]), images[0])
    maps, records = [], []
    for batch in (images, changed):
        with _Recorder(encoder, ownership) as seen:
            maps.append(encoder(batch, ownership)[-1][0])
        records.append(seen)
    differs = (maps[0] != maps[1]).any(0)
    if differs.any():
        where = records[0].first_leak(records[1], 0, ownership.owners[0] == 0)
        raise UserError(
            f'{type(encoder).__name__} shows {int(differs.sum())} cells something of '
            'what the mixture hides. The first module that looks across cells before '
            f'they are mixed is {where}: its patches must not overlap, so use a kernel '
            'no larger than the stride, without padding.'
        )


@torch.no_grad()
def _check_flow(encoder: nn.Module, images: Tensor, grid: tuple[int, int]) -> None:
    """Change visible cells of an image, one at a time, until another one changes."""
    cells = grid[0] * grid[1]
    owners = (torch.arange(cells) >= (cells + 1) // 2).view(1, *grid)  # neighbours
    own, ownership = ~owners[0], TokenOwnership(owners)
    if own.sum() < 2:
        return
    before = encoder(images, ownership)[-1][0]
    for row, column in own.nonzero().tolist():
        changed = images.clone()
        cell = changed[0].unflatten(2, (own.shape[1], -1)).unflatten(1, (len(own), -1))
        cell[:, row, :, column].normal_()
        others = own.clone()
        others[row, column] = False
        after = encoder(changed, ownership)[-1][0]
        if ((before != after).any(0) & others).any():
            return
    raise UserError(
        f'In {type(encoder).__name__} no token sees another one of its own image: let '
        'tokens of one owner meet, for instance where ownership.same_owner is True.'
    )


class _Blank(Filling):
    """Zeros, with a note of what they are mixed with."""

    def forward(self, maps: Tensor, hidden: Tensor) -> Tensor:
        self.channels = maps.shape[-1]
        return maps.new_zeros(())


@torch.no_grad()
def _check_fillings(encoder: nn.Module, images: Tensor, owners: Tensor) -> None:
    """Hidden cells show zeros: what they know of the image, they got from others."""
    name, blank = type(encoder).__name__, _Blank(0)
    ownership = TokenOwnership(owners, filling=blank, isolated=False)
    maps = [
        encoder(batch, ownership)[-1] for batch in (images, torch.randn_like(images))
    ]
    if not blank.channels:
        raise UserError(f'{name} does not mix by ownership.mix, as fillings need.')
    if blank.channels != encoder.out_channels[0]:
        raise UserError(
            f'{name} mixes maps of {blank.channels} channels, but the first of its '
            f'out_channels is {encoder.out_channels[0]}: they must be the same.'
        )
    if not (maps[0] != maps[1]).any(1)[:, owners[0] != 0].any():
        raise UserError(
            f'In {name} owners stay apart although they are not isolated: use '
            'same_owner, split, merge and pool of the ownership, which look at '
            'isolated.'
        )


class _Recorder:
    """Outputs of all modules inside an encoder that are maps or tokens of maps.

    Between ``split`` and ``merge`` of the ownership a module may spill over tokens of
    others, which ``merge`` drops. What that returns stands for the last module before.
    """

    def __init__(self, encoder: nn.Module, ownership: TokenOwnership) -> None:
        self.encoder, self.ownership = encoder, ownership
        self.outputs: list[tuple[str, Tensor]] = []
        self.apart = False
        self.last = ''

    def __enter__(self) -> _Recorder:
        self.hooks = [
            module.register_forward_hook(self._record(name))
            for name, module in self.encoder.named_modules()
            if name
        ]
        self.ownership.split, self.ownership.merge = self._split, self._merge
        return self

    def __exit__(self, *_) -> None:
        del self.ownership.split, self.ownership.merge
        for hook in self.hooks:
            hook.remove()

    def _record(self, name: str) -> Callable:
        def record(module: nn.Module, args: tuple, output) -> None:
            self.last = name
            if isinstance(output, tuple):
                output = output[0]
            if isinstance(output, Tensor) and not self.apart:
                self.outputs.append((name, output))

        return record

    def _split(self, maps: Tensor) -> list[Tensor]:
        self.apart, self.last = True, ''
        return TokenOwnership.split(self.ownership, maps)

    def _merge(self, parts: Sequence[Tensor]) -> Tensor:
        merged = TokenOwnership.merge(self.ownership, parts)
        if self.last:  # none ran if the ownership pools
            self.outputs.append((self.last, merged))
        self.apart = False
        return merged

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
        if self.apart:
            return 'not found, since a split() is not followed by merge()'
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
    # Not strict, since Swin V2 of mmpretrain drops buffers that it makes itself.
    stock.load_state_dict(own, strict=False)
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
    for _ in range(10):  # a pass may skip branches by stochastic depth
        maps = encoder(images, ownership)[-1]
        # No power of the maps: behind a norm their sum is constant.
        (maps * torch.randn_like(maps)).sum().backward()
        missing = [
            name
            for name, each in encoder.named_parameters()
            if each.requires_grad and (each.grad is None or not each.grad.any())
        ]
        if not missing:
            return
    raise UserError(
        f'{missing[0]} of {type(encoder).__name__} gets no gradient: freeze it with '
        'requires_grad=False, or use it.'
    )
