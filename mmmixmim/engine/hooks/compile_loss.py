"""Compile the loss of a model, forward and backward pass, by ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mmmixmim.registry import HOOKS
from mmmixmim.validation import UserError


@HOOKS.register_module()
class CompileLossHook(Hook):
    """Compile ``model.loss`` for training.

    MMEngine's ``compile=True`` compiles the whole training step. Hooks, samples and the
    optimizer's Python break that into many graphs, some of which compile again until
    PyTorch gives up. Here the loss of a pretraining model is one graph, for all masks
    and epochs; a smaller last batch compiles once more. Checkpoints don't change.

    With DDP, PyTorch splits the graph where the buckets of its gradients end, so that
    communication still overlaps. FSDP gathers weights inside the loss, so each of its
    innermost units, a block, is a graph of its own. The rest is not compiled.

    Args:
        fullgraph: Whether a break of the graph is an error. Defaults to True.
        **options: Other arguments of ``torch.compile``, as ``mode='reduce-overhead'``
            for CUDA graphs, which helps small batches.

    Raises:
        UserError: With ``range_mask_ratio``, or another wrapper, as DeepSpeed's.
    """

    def __init__(self, fullgraph: bool = True, **options) -> None:
        self.options = dict(fullgraph=fullgraph, **options)
        self.limit: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Replace the loss by the compiled one."""
        model = _compilable(runner.model)
        if getattr(model, 'range_mask_ratio', 0):
            raise UserError(
                'CompileLossHook needs the same number of hidden cells in all steps: '
                f'set model.range_mask_ratio=0, got {model.range_mask_ratio}, or leave '
                'the hook out.'
            )
        # Else a number that differs from an earlier model's, such as the mask ratio,
        # becomes a dynamic shape.
        torch.compiler.reset()
        if not isinstance(runner.model, FSDP):
            model.loss = _with_clear_errors(
                torch.compile(model.loss, **self.options), model.loss
            )
            return
        units = _innermost_units(runner.model)
        # Maps of other stages would make all sizes dynamic, which compiles for minutes.
        options = dict(dynamic=False) | self.options
        for unit in units:
            unit.compile(**options)
        # PyTorch limits how often a function compiles, and all blocks share one. Allow
        # each two batch sizes, in training and in evaluation.
        # PyTorch 2.6 knows only the old name of recompile_limit.
        self.limit = torch._dynamo.config.cache_size_limit
        torch._dynamo.config.cache_size_limit = self.limit + 4 * len(units)

    def after_train(self, runner: Runner) -> None:
        """Restore what was compiled."""
        if not isinstance(runner.model, FSDP):
            del _compilable(runner.model).loss
            return
        for unit in _innermost_units(runner.model):
            unit._compiled_call_impl = None
        torch._dynamo.config.cache_size_limit = self.limit


def _with_clear_errors(compiled: Callable, eager: Callable) -> Callable:
    """Let a batch that the loss refuses raise what it raises without a compiler.

    After any failure of the compiler one forward pass runs without it.
    """

    def loss(*args, **kwargs) -> dict:
        try:
            return compiled(*args, **kwargs)
        except torch._dynamo.exc.TorchDynamoException:
            eager(*args, **kwargs)
            raise

    return loss


def _innermost_units(model: FSDP) -> list[nn.Module]:
    """The modules that FSDP gathers by themselves and that hold no other such."""
    units = FSDP.fsdp_modules(model)
    return [each.module for each in units if len(FSDP.fsdp_modules(each)) == 1]


def _compilable(model: nn.Module) -> nn.Module:
    if isinstance(model, (MMDistributedDataParallel, FSDP)):
        return model.module
    if is_model_wrapper(model):
        raise UserError(
            f'CompileLossHook works in one process, with DDP and with FSDP, not with '
            f'{type(model).__name__}: leave it out.'
        )
    return model
