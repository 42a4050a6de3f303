"""Sizes and windows of the MixMIM encoder, and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmmixmim.validation import (
    UserError,
    as_pair,
    check_image_size,
    check_positive_int,
)

Size = tuple[int, int]
WindowSize = int | Sequence[int | Sequence[int]] | None

_DEPTHS = (2, 2, 18, 2)
# As in the authors' code.
ARCHS = {
    'base': dict(embed_dims=128, depths=_DEPTHS, num_heads=(4, 8, 16, 32)),
    'large': dict(embed_dims=192, depths=_DEPTHS, num_heads=(6, 12, 24, 48)),
    'huge': dict(embed_dims=352, depths=_DEPTHS, num_heads=(11, 22, 44, 88)),
}


@dataclass(frozen=True)
class Arch:
    """Sizes of a hierarchical encoder. Stage i halves the map and doubles the channels.

    Attributes:
        embed_dims: Channels of the first stage.
        depths: Number of blocks of each stage.
        num_heads: Number of attention heads of each stage.
        patch_size: Side of a patch in pixels.
        img_size: Height and width in pixels.
        windows: Window height and width in tokens of each stage.

    Examples:
        >>> arch = Arch.read('base', img_size=224, patch_size=4, window_size=None)
        >>> arch.stride, arch.channels, arch.maps
        (32, [128, 256, 512, 1024], [(56, 56), (28, 28), (14, 14), (7, 7)])
        >>> arch.windows
        ((14, 14), (14, 14), (14, 14), (7, 7))
    """

    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    patch_size: int
    img_size: Size
    windows: tuple[Size, ...]

    @classmethod
    def read(
        cls,
        arch: str | dict,
        img_size: int | Sequence[int],
        patch_size: int,
        window_size: WindowSize,
    ) -> Arch:
        """Read the arguments of :class:`MixMIMTransformer`.

        Raises:
            UserError: If they cannot make a model.
        """
        embed_dims, depths, num_heads = _read_sizes(arch)
        check_positive_int('patch_size', patch_size)
        img_size = as_pair('img_size', img_size)
        stages = len(depths)
        check_image_size(img_size, patch_size * 2 ** (stages - 1), 'img_size')
        maps = _maps(img_size, patch_size, stages)
        windows = _read_windows(window_size, maps, img_size)
        return cls(embed_dims, depths, num_heads, patch_size, img_size, windows)

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.depths)

    @property
    def stride(self) -> int:
        """Side in pixels of a cell, which is a token of the last map."""
        return self.patch_size * 2 ** (self.stages - 1)

    @property
    def channels(self) -> list[int]:
        """Channels of each stage."""
        return [self.embed_dims * 2**i for i in range(self.stages)]

    @property
    def maps(self) -> list[Size]:
        """Height and width in tokens of each stage's map at ``img_size``."""
        return _maps(self.img_size, self.patch_size, self.stages)

    def drop_path_rates(self, last: float) -> list[list[float]]:
        """Drop path rate of each block of each stage, from 0 linearly to ``last``."""
        blocks = sum(self.depths)
        rates = [last * i / max(1, blocks - 1) for i in range(blocks)]
        return [[rates.pop(0) for _ in range(depth)] for depth in self.depths]


def read_out_indices(
    out_indices: int | Sequence[int], count: int, what: str = 'stages'
) -> tuple[int, ...]:
    """Sort the stages that ``out_indices`` names; negative ones count from the end.

    Args:
        out_indices: One or more of them.
        count: How many there are.
        what: What they are, if not stages.

    Raises:
        UserError: If it names none, or one that does not exist.
    """
    given = (out_indices,) if isinstance(out_indices, int) else out_indices
    some = isinstance(given, (list, tuple)) and given
    if not some or not all(type(i) is int and -count <= i < count for i in given):
        raise UserError(
            f'out_indices must name some of the {what} 0 to {count - 1}, got '
            f'{out_indices!r}.'
        )
    return tuple(sorted({i % count for i in given}))


def _maps(img_size: Size, patch_size: int, stages: int) -> list[Size]:
    return [tuple(s // patch_size // 2**i for s in img_size) for i in range(stages)]


def _read_sizes(arch: str | dict) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Read ``embed_dims``, ``depths`` and ``num_heads``."""
    if not isinstance(arch, dict):
        names = {key: name for name in ARCHS for key in (name, name[0])}
        name = names.get(str(arch).lower())
        if name is None:
            raise UserError(
                f'Unknown arch {arch!r}: choose one of {", ".join(ARCHS)}, or give a '
                'dict with embed_dims, depths and num_heads.'
            )
        arch = ARCHS[name]
    keys = ('embed_dims', 'depths', 'num_heads')
    missing = [key for key in keys if key not in arch]
    unknown = [key for key in arch if key not in keys]
    if missing or unknown:
        problem = f'lacks {missing[0]}' if missing else f'has the unknown {unknown[0]}'
        raise UserError(
            f'An arch dict needs the keys {", ".join(keys)}; {dict(arch)} {problem}.'
        )
    embed_dims, depths, num_heads = (arch[key] for key in keys)
    check_positive_int('embed_dims', embed_dims)
    for key in keys[1:]:
        if not isinstance(arch[key], (list, tuple)):
            raise UserError(f'{key} must be a list, got {arch[key]!r}.')
    if len(depths) != len(num_heads) or not depths:
        raise UserError(
            'depths and num_heads need one entry per stage, got '
            f'{len(depths)} depths {list(depths)} and {len(num_heads)} num_heads '
            f'{list(num_heads)}.'
        )
    for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        dim = embed_dims * 2**i
        check_positive_int(f'depths[{i}]', depth)
        check_positive_int(f'num_heads[{i}]', heads)
        if dim % heads:
            raise UserError(
                f'Stage {i} has {dim} channels (embed_dims {embed_dims} * 2 ** {i}), '
                f'which {heads} heads do not divide. Choose num_heads[{i}] among the '
                f'divisors of {dim}.'
            )
    return embed_dims, tuple(depths), tuple(num_heads)


def _read_windows(
    window_size: WindowSize, maps: list[Size], img_size: Size
) -> tuple[Size, ...]:
    """Read the window of each stage, at most as large as its map."""
    stages = len(maps)
    given_per_stage = isinstance(window_size, (list, tuple))
    sizes = list(window_size) if given_per_stage else [window_size] * stages
    if window_size is None:
        sizes = [14] * (stages - 1) + [7]
    if len(sizes) != stages:
        raise UserError(
            f'window_size needs one entry for each of the {stages} stages, got '
            f'{len(sizes)}: {sizes}.'
        )
    windows = [as_pair('window_size', size) for size in sizes]
    fitting = [
        tuple(map(min, window, size))
        for window, size in zip(windows, maps, strict=True)
    ]
    for i, (window, fit) in enumerate(zip(windows, fitting, strict=True)):
        if given_per_stage and window != fit:
            raise UserError(
                f'window_size[{i}] is {window[0]}x{window[1]}, larger than the map of '
                f'stage {i}, {maps[i][0]}x{maps[i][1]} tokens at img_size '
                f'{img_size[0]}x{img_size[1]}: make it {fit[0]}x{fit[1]} or smaller, '
                'or set img_size to that of the task.'
            )
    return tuple(fitting)
