"""The hierarchical window-attention encoder of MixMIM."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmixmim.checkpoint import adapt_encoder
from mmmixmim.geometry import resize_position_embedding, sincos_position_embedding
from mmmixmim.ops import set_low_precision, set_recompute
from mmmixmim.registry import MODELS
from mmmixmim.validation import (
    check_floats,
    check_image,
    check_image_size,
    check_int_between,
    check_positive,
    check_positive_int,
    check_probability,
)

from ..layers import (
    Norm,
    PatchEmbed,
    PatchMerging,
    Stage,
    TransformerBlock,
    WindowAttention,
    init_transformer_weights,
)
from ..mixing import TokenOwnership
from ._pretrained import LoadsPretrained
from .arch import ARCHS, Arch, WindowSize, read_out_indices


@MODELS.register_module()
class MixMIMTransformer(LoadsPretrained, BaseModule):
    """MixMIM's encoder, for pretraining, classification and dense tasks.

    Source: MixMAE (arXiv 2205.13137), section 3. Parameter names are the
    authors'. Images may have any height and width, square or not; for mixing, the
    stride, ``patch_size * 2 ** (stages - 1)``, must divide both.

    Args:
        arch: 'base' ('b'), 'large' ('l'), 'huge' ('h'), or a dict with the keys
            ``embed_dims`` (channels of the first stage, doubled by each next one),
            ``depths`` and ``num_heads`` (one entry per stage). Defaults to 'base'.
        img_size: Height and width in pixels that position embeddings and bias tables
            are made for, multiples of the stride. Images may have any other size, with
            resized position embeddings. Defaults to 224.
        patch_size: Side of a patch in pixels. Defaults to 4.
        in_channels: Channels of the images. Defaults to 3.
        window_size: Window height and width in tokens, one per stage, each at most as
            large as the stage's map at ``img_size``; or one for all stages, which
            shrinks to smaller maps. Loading interpolates bias tables of other windows;
            to crop them instead, keep ``img_size`` and feed smaller images. Defaults
            to None: 14, and 7 in the last stage, or the map if it is smaller.
        shift_windows: Whether every second block shifts its windows by half a window,
            as in Swin (arXiv 2103.14030), section 3.2, in stages whose map is larger
            than the window. It lets windows exchange information on large images and
            adds no parameter. Defaults to False.
        mlp_ratio: FFN expansion ratio. Defaults to 4.
        qkv_bias: Whether queries, keys and values have a bias. Defaults to True.
        drop_rate: Dropout probability after the position embedding and after each
            projection. Defaults to 0.
        attn_drop_rate: Dropout probability of attention weights. Defaults to 0.
        drop_path_rate: Stochastic depth: the probability of dropping a residual branch
            of the last block for an image, growing linearly from 0 in the first block.
            Defaults to 0.
        out_indices: Stages whose maps are returned, each after a norm. Negative ones
            count from the end. Later stages don't run. Defaults to (-1, ).
        frozen_stages: 0 freezes the patch embedding, n also the first n stages with
            their norms: no gradients, and evaluation mode during training. Defaults
            to -1: nothing is frozen.
        recompute: What the backward pass recomputes to save memory: 'none'; 'norms',
            the outputs of LayerNorm and GELU; or 'blocks' (activation checkpointing).
            Results are the same. docs/performance.md has the costs. Defaults to None:
            'norms' on a CPU and 'none' on a GPU, the fastest choice.
        with_cp: OpenMMLab's name of ``recompute='blocks'``. Defaults to False.
        low_precision_norms: Whether LayerNorm, and with it the residual stream, stays
            in autocast's precision. Mean and variance are in float32 all the same.
            docs/performance.md has the effect. Defaults to False: LayerNorm and the
            residual stream of the first stage are in float32.
        pretrained: A checkpoint, short for ``init_cfg`` of type ``Pretrained``.
            mmsegmentation sets it from ``pretrained`` of the model. Defaults to None.
        init_cfg: MMEngine's initialisation config. Without one, the model keeps the
            authors' initialisation, which it gets when it is built.

    Raises:
        UserError: If the arguments cannot make a model.

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

    ARCHS = ARCHS

    def __init__(
        self,
        arch: str | dict = 'base',
        img_size: int | Sequence[int] = 224,
        patch_size: int = 4,
        in_channels: int = 3,
        window_size: WindowSize = None,
        shift_windows: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        out_indices: int | Sequence[int] = (-1,),
        frozen_stages: int = -1,
        recompute: str | None = None,
        with_cp: bool = False,
        low_precision_norms: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(pretrained=pretrained, init_cfg=init_cfg)
        sizes = Arch.read(arch, img_size, patch_size, window_size)
        check_positive_int('in_channels', in_channels)
        check_positive('mlp_ratio', mlp_ratio)
        check_probability('drop_rate', drop_rate)
        check_probability('attn_drop_rate', attn_drop_rate)
        check_probability('drop_path_rate', drop_path_rate)
        check_int_between('frozen_stages', frozen_stages, -1, sizes.stages)
        self.in_channels = in_channels
        self.stride = sizes.stride
        self.img_size = sizes.img_size
        self.map_size = sizes.maps[0]
        self.out_channels = sizes.channels
        self.out_indices = read_out_indices(out_indices, sizes.stages)
        self.frozen_stages = frozen_stages

        self.absolute_pos_embed = nn.Parameter(
            sincos_position_embedding(self.map_size, sizes.embed_dims),
            requires_grad=False,
        )
        self.patch_embed = PatchEmbed(in_channels, sizes.embed_dims, patch_size)
        self.pos_drop = nn.Dropout(drop_rate)

        def block(stage: int, drop_path: float) -> TransformerBlock:
            attn = WindowAttention(
                sizes.channels[stage],
                sizes.num_heads[stage],
                sizes.windows[stage],
                qkv_bias=qkv_bias,
                attn_drop=attn_drop_rate,
                proj_drop=drop_rate,
            )
            return TransformerBlock(
                sizes.channels[stage], attn, mlp_ratio, drop_rate, drop_path
            )

        self.layers = nn.ModuleList()
        for i, rates in enumerate(sizes.drop_path_rates(drop_path_rate)):
            last = i == sizes.stages - 1
            self.layers.append(
                Stage(
                    blocks=[block(i, rate) for rate in rates],
                    window=sizes.windows[i],
                    downsample=None if last else PatchMerging(sizes.channels[i]),
                    shift_windows=shift_windows,
                )
            )
        for i in self.out_indices:
            self.add_module(self._norm_name(i), Norm(self.out_channels[i]))
        self.apply(init_transformer_weights)
        set_recompute(self, recompute, with_cp)
        set_low_precision(self, low_precision_norms)
        self._freeze()

    def forward(
        self, x: Tensor, mask: Tensor | TokenOwnership | None = None
    ) -> tuple[Tensor, ...]:
        """Encode images, mixed with their partners if a mask is given.

        Args:
            x: Images (B, C, H, W) of any size. With a mask, the stride divides both
                sides.
            mask: (1 or B, H / stride, W / stride), 1 where the partner (image
                ``B - 1 - i`` for image ``i``) shows, or the :class:`TokenOwnership`
                made of it. Defaults to None: plain images.

        Returns:
            One map (B, C, H / s, W / s), rounded up, for each stage in ``out_indices``.
        """
        check_image(x, self.in_channels)
        check_floats(x)
        ownership = None
        if mask is not None:
            check_image_size(tuple(x.shape[2:]), self.stride)
            grid = tuple(side // self.stride for side in x.shape[2:])
            ownership = TokenOwnership.of(mask, len(x), grid, x.device)

        maps = self.patch_embed(x)  # (B, H / patch, W / patch, C)
        if ownership is not None:
            maps = ownership.mix(maps)
        positions = self._position_embedding(maps.shape[1:3])
        if self.low_precision:  # else the sum is in float32
            positions = positions.to(maps.dtype)
        maps = self.pos_drop(maps + positions)

        outputs = []
        for i, stage in enumerate(self.layers):
            maps = stage(maps, ownership)
            if i in self.out_indices:
                output = getattr(self, self._norm_name(i))(maps)
                outputs.append(output.permute(0, 3, 1, 2).contiguous())
            if i == self.out_indices[-1]:
                break
            maps = stage.downsample(maps)  # (B, H / 2, W / 2, 2 * C)
        return tuple(outputs)

    def train(self, mode: bool = True) -> MixMIMTransformer:
        """Set the mode; frozen stages stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Tell the layer of a parameter, for layer-wise learning rates.

        The embedding is layer 0, each block the next one. Patch merging belongs to the
        block after it, the last norm to the block before it, as in the authors' code.
        Norms of earlier maps (``norm0``, ...) are new in every fine-tuning, so they
        belong to the head.

        Args:
            param_name: Name of the parameter.
            prefix: Prefix of the backbone's parameters.

        Returns:
            The layer, and the number of layers. The last layer is the head, to which
            all names without ``prefix`` belong.
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
        adapt_encoder(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

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
        """Freeze ``frozen_stages``, and the stages that don't run."""
        last = self.out_indices[-1]
        unused = [*self.layers[last + 1 :], self.layers[last].downsample]
        for module in (*self._frozen_modules(), *unused):
            if module is not None:
                module.requires_grad_(False)
