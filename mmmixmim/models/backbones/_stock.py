"""What the encoders made of stock classes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from mmpretrain.models.utils import to_2tuple
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute_activations

from mmmixmim.checkpoint import fit_stock
from mmmixmim.validation import UserError

from ._pretrained import LoadsPretrained
from .layer_depth import NumbersLayers


class ReturningTrain:
    """Mixin: ``train`` returns the module, which mmpretrain's backbones' does not."""

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode and return the module."""
        super().train(mode)
        return self


class StockTransformer(LoadsPretrained, NumbersLayers, ReturningTrain):
    """Mixin of all but ConvNeXt: resizes what depends on the image size in any load.

    That includes ``load_from`` of a config, where a detector loads its weights.
    """

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        start = prefix.removesuffix('.')
        tensors = chain(self.named_parameters(start), self.named_buffers(start))
        own = {name: value for name, value in tensors if name in state_dict}
        state_dict.update(fit_stock(self, own, state_dict))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def replace_blocks(encoder: nn.Module, stock: type, mixing: type) -> None:
    """Give blocks of a stock class a ``forward`` that also takes an ownership.

    They keep their parameters. FSDP, activation checkpointing and hooks then see each
    block called, with and without an ownership.

    Args:
        encoder: Holds the blocks.
        stock: Their class.
        mixing: The class that replaces it, a subclass that differs in methods alone.
    """
    for module in encoder.modules():
        if type(module) is stock:
            module.__class__ = mixing


def run_recomputed(block: nn.Module, forward: Callable, x: Tensor) -> Tensor:
    """Run a block's ``forward``, with activation checkpointing if ``with_cp`` is set.

    Args:
        block: mmpretrain's block.
        forward: Function of ``x``.
        x: Its input, of any shape.
    """
    if block.with_cp and x.requires_grad:
        return recompute_activations(forward, x, use_reentrant=False)
    return forward(x)


def cell_side(encoder: nn.Module, layers: Mapping[str, nn.Conv2d | nn.Unfold]) -> int:
    """Side in pixels of the cell behind each token of the last map.

    Args:
        encoder: The encoder, for messages.
        layers: The layers that cut images and maps into patches, each under the
            argument that sets it.

    Raises:
        UserError: If patches overlap, are padded or are not equally wide and high. An
            overlapping patch at the border of a cell also shows the next cell, which
            may be of another image.
    """
    side = 1
    name = type(encoder).__name__
    for argument, layer in layers.items():
        kernel, stride, padding, dilation = (
            to_2tuple(getattr(layer, each))
            for each in ('kernel_size', 'stride', 'padding', 'dilation')
        )
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        if any(padding) or reach[0] > stride[0] or reach[1] > stride[1]:
            raise UserError(
                f'{name} cannot mix images with overlapping or padded patches, as in '
                f'PVT v2 and MiT: those of {argument} have the kernel size {kernel}, '
                f'stride {stride}, padding {padding} and dilation {dilation}, so '
                'tokens see cells of other images. Use a kernel no larger than the '
                'stride, without padding.'
            )
        if stride[0] != stride[1]:
            raise UserError(
                f'{name} needs patches of the same stride in height and width, got '
                f'{stride} from {argument}.'
            )
        side *= stride[0]
    return side
