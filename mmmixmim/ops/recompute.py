"""What the backward pass recomputes: nothing, norms and GELU, or whole blocks.

LayerNorm and GELU are cheap to compute, and their outputs take 6 of the 16 numbers per
token and channel that a transformer block would store for its backward pass. Each op
below notes on its output how to compute it again; :class:`~mmmixmim.ops.Linear` then
stores that recipe instead of the output.

:func:`set_recompute` chooses for a model. Results are the same, bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmixmim.validation import UserError

from .switch import runs_eagerly, runs_on_cpu

MODES = ('none', 'norms', 'blocks')


class Recipe(NamedTuple):
    """How to compute a tensor again: ``function(source, *parameters)``.

    ``gradient(grad, source)``, if there is one, turns the gradient of the tensor into
    that of ``source`` in place.
    """

    function: Callable[..., Tensor]
    source: Tensor
    version: int
    parameters: tuple[Tensor | None, ...] = ()
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None

    def __reduce__(self) -> tuple:
        """Leave it out of files of the tensor, which load without running code."""
        return OrderedDict, ()


def set_recompute(model: nn.Module, mode: str | None, with_cp: bool = False) -> None:
    """Choose what the backward pass of a model recomputes instead of storing it.

    Args:
        model: The model.
        mode: 'none'; 'norms', the outputs of LayerNorm and GELU; or 'blocks', all that
            :func:`run_block` runs. None: 'norms' on a CPU, where it costs about 1 % of
            a step, else 'none', since GPUs are bound by the memory traffic of norms.
        with_cp: The name of 'blocks' in OpenMMLab.

    Raises:
        UserError: If there is no such mode.
    """
    if mode not in (None, *MODES):
        raise UserError(
            f'recompute must be one of {", ".join(MODES)}, or None for the fastest '
            f'that suits the device; got {mode!r}.'
        )
    if with_cp:
        if mode not in (None, 'blocks'):
            raise UserError(
                f"with_cp=True means recompute='blocks', and recompute={mode!r} is "
                'given too: leave with_cp out.'
            )
        mode = 'blocks'
    for module in model.modules():
        module.recompute = mode


def set_low_precision(model: nn.Module, wanted: bool) -> None:
    """Choose whether the norms of a model stay in autocast's precision.

    Args:
        model: The model.
        wanted: See :class:`LayerNorm`.
    """
    for module in model.modules():
        module.low_precision = wanted


def run_block(block: nn.Module, *args) -> Tensor:
    """Call a block, with activation checkpointing in the mode 'blocks'."""
    if getattr(block, 'recompute', None) == 'blocks' and torch.is_grad_enabled():
        return checkpoint(block, *args, use_reentrant=False)
    return block(*args)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm``; a following :class:`~mmmixmim.ops.Linear` may recompute it.

    With ``low_precision``, autocast does not widen it to float32: it takes and returns
    the low precision, and computes mean and variance in float32 inside the kernel.
    """

    recompute = None
    low_precision = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., C)."""
        parameters = self.weight, self.bias
        out = self._normalise(x, *parameters)
        return _note(out, self._normalise, x, self.recompute, parameters)

    def _normalise(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        device = x.device.type
        if not (self.low_precision and torch.is_autocast_enabled(device)):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = (
            None if each is None else each.to(dtype) for each in (x, weight, bias)
        )
        with torch.autocast(device, enabled=False):
            return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


def gelu(x: Tensor, recompute: str | None = None) -> Tensor:
    """``F.gelu``; a following :class:`~mmmixmim.ops.Linear` may recompute it.

    That layer sends its gradient straight to ``x``. To watch the gradient of the
    output, register a hook on it, or ``retain_grad``, before the layer runs.

    Args:
        x: Any tensor.
        recompute: See :func:`set_recompute`.
    """
    return _note(F.gelu(x), F.gelu, x, recompute, gradient=_gelu_gradient)


def recipe_of(x: Tensor) -> Recipe | None:
    """How to compute ``x`` again, None if nothing is known or ``x`` was changed."""
    recipe = getattr(x, '_recipe', None)
    return recipe if recipe and recipe.version == x._version else None


def _gelu_gradient(grad: Tensor, source: Tensor) -> Tensor:
    return torch.ops.aten.gelu_backward.grad_input(grad, source, grad_input=grad)


def _note(
    out: Tensor,
    function: Callable[..., Tensor],
    source: Tensor,
    mode: str | None,
    parameters: tuple[Tensor | None, ...] = (),
    gradient: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    wanted = runs_on_cpu(out) if mode is None else mode == 'norms'
    if wanted and runs_eagerly() and torch.is_grad_enabled():
        out._recipe = Recipe(function, source, out._version, parameters, gradient)
    return out
