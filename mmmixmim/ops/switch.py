"""One switch that turns all kernels of this package off."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmmixmim.validation import UserError

_plain = os.environ.get('MMMIXMIM_PLAIN', '0') not in ('', '0')
_cpu = True


@contextmanager
def plain() -> Iterator[None]:
    """Run plain PyTorch instead of this package's kernels.

    Results agree to rounding. The environment variable ``MMMIXMIM_PLAIN=1`` does the
    same for a whole process. Keep the forward and the backward pass in the same
    context when activation checkpointing is on, since it runs the forward pass again.
    """
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Treat tensors on the CPU as if they were on a GPU.

    Lets benchmarks count a GPU's kernels on CPU or fake tensors.
    """
    global _cpu
    before, _cpu = _cpu, False
    try:
        yield
    finally:
        _cpu = before


def runs_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor's kernels are those of a CPU."""
    return _cpu and tensor.device.type == 'cpu'


def is_plain() -> bool:
    """Whether kernels are switched off."""
    return _plain


def runs_eagerly() -> bool:
    """Whether kernels may run: switched on, and neither compiled nor traced.

    A compiler fuses and recomputes by its own rules, so it gets plain PyTorch, but for
    the gradients of linear layers, see :mod:`mmmixmim.ops.compiled_linear`.
    """
    return not (_plain or torch.compiler.is_compiling() or torch.jit.is_tracing())


def first_gradients_only(backward: Callable) -> Callable:
    """Let a kernel's backward pass refuse gradients of gradients.

    PyTorch's ``once_differentiable`` leaves them out without a word where the gradient
    of the outputs is constant.
    """

    @functools.wraps(backward)
    def wrapper(ctx, *grads: Tensor) -> tuple:
        if torch.is_grad_enabled():
            raise UserError(
                'Kernels of mmmixmim have no second gradients, as create_graph=True '
                'wants: run forward and backward pass inside mmmixmim.ops.plain().'
            )
        return backward(ctx, *grads)

    return wrapper


def is_watched(module: nn.Module) -> bool:
    """Whether to skip a module's ``forward`` would show: hooks, or another one.

    PyTorch has no public way to ask for hooks.
    """
    forward = module._forward_hooks or module._forward_pre_hooks
    backward = module._backward_hooks or module._backward_pre_hooks
    # PyTorch 2.6 cannot compile vars().
    return bool(forward or backward) or 'forward' in module.__dict__
