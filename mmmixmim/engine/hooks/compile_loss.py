"""Compile the loss of a model, forward and backward pass, by ``torch.compile``."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

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
    communication still overlaps.

    Args:
        fullgraph: Whether a break of the graph is an error. Defaults to True.
        **options: Other arguments of ``torch.compile``, as ``mode='reduce-overhead'``
            for CUDA graphs, which helps small batches.

    Raises:
        UserError: With ``range_mask_ratio``, or another wrapper than DDP's, as FSDP and
            DeepSpeed gather weights inside the loss.
    """

    def __init__(self, fullgraph: bool = True, **options) -> None:
        self.options = dict(fullgraph=fullgraph, **options)

    def before_train(self, runner: Runner) -> None:
        """Replace the loss by the compiled one."""
        model = _unwrapped(runner.model)
        if getattr(model, 'range_mask_ratio', 0):
            raise UserError(
                'CompileLossHook needs the same number of hidden cells in all steps: '
                f'set model.range_mask_ratio=0, got {model.range_mask_ratio}, or leave '
                'the hook out.'
            )
        # Else a number that differs from an earlier model's, such as the mask ratio,
        # becomes a dynamic shape.
        torch.compiler.reset()
        model.loss = torch.compile(model.loss, **self.options)

    def after_train(self, runner: Runner) -> None:
        """Restore the model's own loss."""
        del _unwrapped(runner.model).loss


def _unwrapped(model: nn.Module) -> nn.Module:
    if isinstance(model, MMDistributedDataParallel):
        return model.module
    if is_model_wrapper(model):
        raise UserError(
            f'CompileLossHook works in one process or with DDP, not with '
            f'{type(model).__name__}: leave it out.'
        )
    return model
