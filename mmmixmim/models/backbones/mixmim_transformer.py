"""The hierarchical window-attention encoder of MixMIM."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmixmim.checkpoint import (
    has_encoder,
    load_encoder,
    pick_encoder,
    rename_entries,
)
from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    UserError,
    as_list,
    as_pair,
    check_image,
    check_image_size,
    check_img_size,
    check_positive_int,
    check_probability,
)

from ..utils import (
    TokenOwnership,
    TransformerBlock,
    WindowLayout,
    init_transformer_weights,
    linear,
    load_position_embedding,
    resize_position_embedding,
    sincos_position_embedding,
)

PRETRAINED = ('Pretrained', 'mmengine.Pretrained', PretrainedInit)


class PatchEmbed(nn.Module):
    """Cut images into patches and embed each by a linear map and a LayerNorm.

    Images are padded with zeros at the bottom and right where patches don't
    divide them.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        """Embed (B, C, H, W) to (B, H / patch, W / patch, dim), rounded up."""
        patch = self.proj.stride[0]
        down, right = (-side % patch for side in images.shape[2:])
        if down or right:
            images = F.pad(images, (0, right, 0, down))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Merge each 2x2 square of tokens into one of twice the channels.

    As in Swin (arXiv 2103.14030), section 3.1. The four neighbours are
    concatenated in the order of its code: top left, bottom left, top right,
    bottom right. A map of odd sides is padded with zeros at the bottom and right.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Merge (B, H, W, C) to (B, H / 2, W / 2, 2 * C), rounded up."""
        down, right = (side % 2 for side in maps.shape[1:3])
        if down or right:
            maps = F.pad(maps, (0, 0, 0, right, 0, down))
        squares = maps.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        merged = squares.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return linear(self.reduction, merged, before=self.norm)


class Stage(nn.Module):
    """Blocks at one resolution, and the patch merging that follows them.

    Args:
        dim: Number of channels.
        num_heads: Number of attention heads.
        window: Height and width of the windows that bias tables are made for.
        drop_path: Drop path probability of each block; their number is the
            depth.
        downsample: Whether patch merging follows.
        shift_windows: Whether every second block's windows are shifted, where
            one does not cover the map.
        with_cp: Whether to recompute activations in the backward pass.
        **kwargs: Passed on to :class:`TransformerBlock`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: tuple[int, int],
        drop_path: Sequence[float],
        downsample: bool,
        shift_windows: bool,
        with_cp: bool,
        **kwargs,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift_windows = shift_windows
        self.with_cp = with_cp
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, num_heads, window, drop_path=rate, **kwargs)
            for rate in drop_path
        )
        self.downsample = PatchMerging(dim) if downsample else None

    def forward(self, maps: Tensor, ownership: TokenOwnership | None) -> Tensor:
        """Run the blocks on (B, H, W, C), without the patch merging."""
        layouts = self._layouts(maps, ownership)
        layout = layouts[0]
        tokens = layout.arrange(maps)
        for i, block in enumerate(self.blocks):
            wanted = layouts[i % len(layouts)]
            if wanted is not layout:
                tokens = wanted.arrange(layout.restore(tokens))
                layout = wanted
            if self.with_cp and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, layout, use_reentrant=False)
            else:
                tokens = block(tokens, layout)
        return layout.restore(tokens)

    def _layouts(
        self, maps: Tensor, ownership: TokenOwnership | None
    ) -> list[WindowLayout]:
        """The layouts that the blocks take in turn."""
        size = tuple(maps.shape[1:3])
        shifts = [False]
        larger = any(s > w for s, w in zip(size, self.window, strict=True))
        if self.shift_windows and larger:
            shifts.append(True)
        return [
            WindowLayout(size, self.window, ownership, maps.device, shift)
            for shift in shifts
        ]


@MODELS.register_module()
class MixMIMTransformer(BaseModule):
    """MixMIM's encoder, for pretraining, classification and dense tasks.

    Source: MixMAE (arXiv 2205.13137), section 3.2 and table 1. Parameter names
    are the authors'. Images of any height and width are fine, square or not; for
    mixed ones the stride, ``patch_size * 2 ** (stages - 1)``, divides both.

    Args:
        arch: 'base' ('b'), 'large' ('l'), 'huge' ('h'), or a dict with the keys
            ``embed_dims`` (channels of the first stage, doubled by each next
            one), ``depths`` and ``num_heads`` (one entry per stage).
            Defaults to 'base'.
        img_size: Height and width in pixels that position embeddings and bias
            tables are made for. Inputs of another size use resized position
            embeddings. Defaults to 224.
        patch_size: Side of a patch in pixels. Defaults to 4.
        in_channels: Channels of the input. Defaults to 3.
        window_size: Window height and width in tokens, one per stage, each at
            most as large as the stage's map at ``img_size``; or one for all
            stages, which shrinks to smaller maps. Bias tables of another window
            are interpolated on loading; to crop them instead, keep ``img_size``
            and feed smaller images. Defaults to None: 14, and 7 for the last
            stage, or the map if it is smaller.
        shift_windows: Whether the windows of every second block lie half a
            window further up and left, as in Swin (arXiv 2103.14030), section
            3.2, in stages whose map is larger than the window. For dense tasks
            on large images, where the windows would otherwise not exchange
            information; no parameter is added. Defaults to False.
        mlp_ratio: Hidden channels of the perceptrons over their input's.
            Defaults to 4.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        drop_rate: Dropout probability after the position embedding and after
            each projection. Defaults to 0.
        attn_drop_rate: Dropout probability of attention weights. Defaults to 0.
        drop_path_rate: Probability of dropping the last block's branches for an
            image; the other blocks' grow to it linearly from 0. Defaults to 0.
        out_indices: Stages whose maps are returned. Negative ones count from
            the last. Each has a LayerNorm. Stages above the last of them do
            not run and need no gradient. Defaults to (-1, ).
        frozen_stages: 0 freezes the patch embedding, n also the first n stages
            with their norms: no gradients, and evaluation mode during
            training. Defaults to -1: nothing is frozen.
        with_cp: Whether to save memory by recomputing each block's activations
            in the backward pass. Defaults to False.
        init_cfg: MMEngine's initialisation config. Without one, weights are
            initialised as the authors do when the model is built.

    Raises:
        ValueError: If an argument cannot make a model, with the way out.

    Examples:
        >>> import torch
        >>> from mmmixmim.models import MixMIMTransformer
        >>> arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
        >>> model = MixMIMTransformer(arch, out_indices=(0, 1, 2, 3))
        >>> for feature in model(torch.rand(1, 3, 64, 96)):
        ...     print(tuple(feature.shape))
        (1, 16, 16, 24)
        (1, 32, 8, 12)
        (1, 64, 4, 6)
        (1, 128, 2, 3)
    """

    _DEPTHS = (2, 2, 18, 2)
    ARCHS = {
        'base': dict(embed_dims=128, depths=_DEPTHS, num_heads=(4, 8, 16, 32)),
        'large': dict(embed_dims=192, depths=_DEPTHS, num_heads=(6, 12, 24, 48)),
        'huge': dict(embed_dims=352, depths=_DEPTHS, num_heads=(11, 22, 44, 88)),
    }

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        window_size: int | Sequence[int | Sequence[int]] | None = None,
        shift_windows: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        embed_dims, depths, num_heads = self._read_arch(arch)
        stages = len(depths)
        for name, rate in dict(
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
        ).items():
            check_probability(name, rate)

        check_positive_int('patch_size', patch_size)
        check_positive_int('in_channels', in_channels)

        self.in_channels = in_channels
        self.stride = patch_size * 2 ** (stages - 1)
        self.img_size = as_pair('img_size', img_size)
        check_img_size(self.img_size, self.stride)
        self.out_channels = [embed_dims * 2**i for i in range(stages)]
        self.out_indices = self._read_out_indices(out_indices, stages)
        if type(frozen_stages) is not int or not -1 <= frozen_stages <= stages:
            raise UserError(
                f'frozen_stages must be an int between -1 and {stages}, the number of '
                f'stages, got {frozen_stages!r}.'
            )
        if not isinstance(mlp_ratio, (int, float)) or mlp_ratio <= 0:
            raise UserError(f'mlp_ratio must be a positive number, got {mlp_ratio!r}.')
        self.frozen_stages = frozen_stages

        self.map_size = tuple(side // patch_size for side in self.img_size)
        self.absolute_pos_embed = nn.Parameter(
            sincos_position_embedding(self.map_size, embed_dims), requires_grad=False
        )
        self.patch_embed = PatchEmbed(in_channels, embed_dims, patch_size)
        self.pos_drop = nn.Dropout(drop_rate)

        blocks = sum(depths)
        rates = [drop_path_rate * i / max(1, blocks - 1) for i in range(blocks)]
        maps = [tuple(side // 2**i for side in self.map_size) for i in range(stages)]
        windows = self._read_windows(window_size, maps)
        self.layers = nn.ModuleList()
        for i in range(stages):
            self.layers.append(
                Stage(
                    dim=self.out_channels[i],
                    num_heads=num_heads[i],
                    window=windows[i],
                    drop_path=[rates.pop(0) for _ in range(depths[i])],
                    downsample=i < stages - 1,
                    shift_windows=shift_windows,
                    with_cp=with_cp,
                    mlp_ratio=mlp_ratio,
                    qkv_bias=qkv_bias,
                    drop=drop_rate,
                    attn_drop=attn_drop_rate,
                )
            )
        for i in self.out_indices:
            self.add_module(self._norm_name(i), nn.LayerNorm(self.out_channels[i]))
        self.apply(init_transformer_weights)
        self._freeze()

    def init_weights(self) -> None:
        """Apply ``init_cfg``; without one, keep the weights as they are.

        An entry of the type ``Pretrained`` loads ``checkpoint`` of any layout,
        see :func:`mmmixmim.checkpoint.load_encoder`; ``prefix`` is only needed
        where the file holds several encoders.

        Raises:
            ValueError: If no checkpoint is given, or it does not fit.
        """
        init_cfg = self.init_cfg
        configs = init_cfg if isinstance(init_cfg, list) else [init_cfg or {}]
        pretrained = [cfg for cfg in configs if cfg.get('type') in PRETRAINED]
        self.init_cfg = [cfg for cfg in configs if cfg and cfg not in pretrained]
        super().init_weights()
        self.init_cfg = init_cfg
        for cfg in pretrained:
            if not cfg.get('checkpoint'):
                raise UserError(
                    'The backbone starts from a pretrained checkpoint and none is '
                    'given: set model.backbone.init_cfg.checkpoint=FILE by '
                    '--cfg-options, or model.backbone.init_cfg=None to start from '
                    'scratch or from load_from.'
                )
            load_encoder(self, cfg['checkpoint'], cfg.get('prefix'))

    def forward(
        self, x: Tensor, mask: Tensor | TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if a mask is given.

        Args:
            x: Images (B, C, H, W), of any size without a mask; with one, the
                stride divides H and W.
            mask: (1 or B, H / stride, W / stride), 1 where the partner (image
                ``B - 1 - i`` for image ``i``) shows, or the
                :class:`TokenOwnership` made of it. Defaults to None: plain
                images.

        Returns:
            One map (B, C, H / s, W / s), rounded up, for each stage in
            ``out_indices``.
        """
        check_image(x, self.in_channels)
        ownership = None
        if mask is not None:
            check_image_size(tuple(x.shape[2:]), self.stride)
            ownership = TokenOwnership.of(mask, x.device)
            ownership.check(len(x), tuple(side // self.stride for side in x.shape[2:]))

        maps = self.patch_embed(x)
        if ownership is not None:
            maps = ownership.mix(maps)
        maps = self.pos_drop(maps + self._position_embedding(maps.shape[1:3]))

        outputs = []
        for i, stage in enumerate(self.layers):
            maps = stage(maps, ownership)
            if i in self.out_indices:
                output = getattr(self, self._norm_name(i))(maps)
                outputs.append(output.permute(0, 3, 1, 2).contiguous())
            if i == self.out_indices[-1]:
                break
            maps = stage.downsample(maps)
        return tuple(outputs)

    def train(self, mode: bool = True) -> MixMIMTransformer:
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Tell the layer of a parameter, for layer-wise learning rates.

        The embedding is layer 0 and each block the next one. Patch merging
        belongs to the block after it, the last norm to the block before it. This is
        the authors' numbering. Norms of earlier maps, ``norm0`` and so on, are in no
        pretrained encoder, so they go with the head.

        Args:
            param_name: Name of the parameter.
            prefix: What comes before the backbone's own names.

        Returns:
            The layer, and the number of layers. The last layer is the head: new
            norms and all names that do not start with ``prefix``.
        """
        depths = [len(stage.blocks) for stage in self.layers]
        layers = sum(depths) + 2
        if not param_name.startswith(prefix):
            return layers - 1, layers
        part, *rest = param_name.removeprefix(prefix).split('.')
        if part == 'layers':
            stage, kind = int(rest[0]), rest[1]
            block = int(rest[2]) if kind == 'blocks' else depths[stage]
            return sum(depths[:stage]) + block + 1, layers
        if part == 'norm':
            return sum(depths), layers
        if part.startswith('norm'):
            return layers - 1, layers
        return 0, layers

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        if not prefix and has_encoder(state_dict):
            pick_encoder(state_dict)
        rename_entries(state_dict, prefix, 'patch_embed.projection.weight')
        self._check_shapes(state_dict, prefix)
        load_position_embedding(
            state_dict, f'{prefix}absolute_pos_embed', self.map_size
        )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_shapes(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Refuse the weights of another arch, which no resizing would fit."""
        if f'{prefix}patch_embed.proj.weight' in state_dict:
            block = re.compile(rf'{re.escape(prefix)}(layers\.\d+\.blocks\.\d+)\.')
            theirs = {match[1] for match in map(block.match, state_dict) if match}
            ours = {
                f'layers.{i}.blocks.{j}'
                for i, stage in enumerate(self.layers)
                for j in range(len(stage.blocks))
            }
            if theirs != ours:
                verb = 'lack' if ours - theirs else 'have the unknown'
                raise UserError(
                    f'the weights to load are of another arch: they {verb} '
                    f'{prefix}{min(ours - theirs or theirs - ours)}.'
                )
        for name, own in self.named_parameters():
            given = state_dict.get(prefix + name)
            # Only the rows of these are resized.
            rows = name.endswith(('pos_embed', 'bias_table'))
            start = own.ndim - 1 if rows else 0
            if given is not None and given.shape[start:] != own.shape[start:]:
                raise UserError(
                    f'the weights to load are of another arch, patch_size or '
                    f'in_channels: {prefix}{name} has the shape {tuple(given.shape)} '
                    f'there and {tuple(own.shape)} in this model.'
                )

    def _position_embedding(self, size: Sequence[int]) -> Tensor:
        """Position embedding (1, H, W, C) for a map of ``size``."""
        size = tuple(size)
        embedding = resize_position_embedding(
            self.absolute_pos_embed, self.map_size, size
        )
        return embedding.unflatten(1, size)

    def _norm_name(self, stage: int) -> str:
        return 'norm' if stage == len(self.layers) - 1 else f'norm{stage}'

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        norms = [i for i in self.out_indices if i < self.frozen_stages]
        return [
            self.patch_embed,
            self.pos_drop,
            *self.layers[: self.frozen_stages],
            *(getattr(self, self._norm_name(i)) for i in norms),
        ]

    def _freeze(self) -> None:
        last = self.out_indices[-1]
        unused = [*self.layers[last + 1 :], self.layers[last].downsample]
        for module in (*self._frozen_modules(), *unused):
            if module is not None:
                module.requires_grad_(False)

    @classmethod
    def _read_arch(cls, arch: str | dict) -> tuple[int, list[int], list[int]]:
        """Read and check embed_dims, depths and num_heads."""
        if not isinstance(arch, dict):
            names = {key: name for name in cls.ARCHS for key in (name, name[0])}
            name = names.get(str(arch).lower())
            if name is None:
                raise UserError(
                    f'Unknown arch {arch!r}: choose one of {", ".join(cls.ARCHS)}, or '
                    'give a dict with embed_dims, depths and num_heads.'
                )
            arch = cls.ARCHS[name]
        keys = ('embed_dims', 'depths', 'num_heads')
        missing = [key for key in keys if key not in arch]
        unknown = [key for key in arch if key not in keys]
        if missing or unknown:
            raise UserError(
                f'An arch dict has the keys {", ".join(keys)}; got {dict(arch)}, '
                + (
                    f'which lacks {missing[0]}.'
                    if missing
                    else f'where {unknown[0]} is unknown.'
                )
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
            if depth < 1:
                raise UserError(
                    f'Stage {i} needs at least one block, got depth {depth}.'
                )
            if heads < 1 or dim % heads:
                raise UserError(
                    f'Stage {i} has {dim} channels (embed_dims {embed_dims} * 2 ** {i})'
                    f', which {heads} heads do not divide. Choose num_heads[{i}] among '
                    f'the divisors of {dim}.'
                )
        return embed_dims, depths, num_heads

    def _read_windows(
        self,
        window_size: int | Sequence[int | Sequence[int]] | None,
        maps: list[tuple[int, int]],
    ) -> list[tuple[int, int]]:
        """Read the stages' windows, at most as large as their maps."""
        stages = len(maps)
        chosen = isinstance(window_size, (list, tuple))
        if window_size is None:
            window_size = [14] * (stages - 1) + [7]
        else:
            window_size = as_list('window_size', window_size, stages, 'stages')
        windows = [as_pair('window_size', size) for size in window_size]
        fitting = [
            tuple(map(min, window, size))
            for window, size in zip(windows, maps, strict=True)
        ]
        for i, (window, fit) in enumerate(zip(windows, fitting, strict=True)):
            if chosen and window != fit:
                raise UserError(
                    f'window_size[{i}] is {window[0]}x{window[1]}, larger than the map '
                    f'of stage {i}, {maps[i][0]}x{maps[i][1]} tokens at img_size '
                    f'{self.img_size[0]}x{self.img_size[1]}: make it {fit[0]}x{fit[1]} '
                    'or smaller, or set img_size to that of the task.'
                )
        return fitting

    @staticmethod
    def _read_out_indices(
        out_indices: int | Sequence[int], stages: int
    ) -> tuple[int, ...]:
        given = out_indices
        if isinstance(given, int):
            given = (given,)
        if not isinstance(given, (list, tuple)) or not given:
            given = (None,)
        indices = [i + stages if type(i) is int and i < 0 else i for i in given]
        if any(type(i) is not int or not 0 <= i < stages for i in indices):
            raise UserError(
                f'out_indices must name some of the stages 0 to {stages - 1}, got '
                f'{out_indices!r}.'
            )
        return tuple(sorted(set(indices)))
