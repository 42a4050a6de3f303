"""Pictures of reconstructions during the training."""

from __future__ import annotations

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmixmim.datasets import MixtureGroups
from mmmixmim.log import warn
from mmmixmim.models.selfsup import fixed_mixtures
from mmmixmim.registry import HOOKS
from mmmixmim.runtime import kept_random_state
from mmmixmim.validation import UserError, check_positive_int
from mmmixmim.visualization import paint_reconstruction

from ..wrappers import is_sharded, unwrapped


@HOOKS.register_module()
class ReconstructionHook(Hook):
    """Show the same held-out images after each validation, to all visualizer backends.

    The pictures are called ``reconstruction``; their step is the iteration. Images,
    crops and masks stay the same, so that pictures can be compared. See
    :func:`~mmmixmim.visualization.paint_reconstruction` for their rows. One process
    draws them, and leaves the random state as it was. Of a sharded model (FSDP,
    DeepSpeed) there are none, and a line says so.

    Args:
        num_groups: Number of groups of images, which are mixed with one another.
            Defaults to 4, which are 8 images.
    """

    priority = 'ABOVE_NORMAL'  # than EMAHook, which puts the trained weights back

    def __init__(self, num_groups: int = 4) -> None:
        check_positive_int('num_groups', num_groups)
        self.num_groups = num_groups
        self.batch = None
        self.off = False

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw and hand over a picture."""
        dataset = runner.val_dataloader.dataset
        if self.off or not is_main_process() or not isinstance(dataset, MixtureGroups):
            return
        if is_sharded(runner):
            self.off = True
            problem = 'they need the whole model in one process, and it is sharded.'
            warn(f'No pictures are drawn: {problem}')
            return
        model = unwrapped(runner.model)
        with kept_random_state(seed=0):
            if self.batch is None:
                count = min(self.num_groups, len(dataset))
                groups = zip(*(dataset[j]['inputs'] for j in range(count)), strict=True)
                groups = [torch.stack(images) for images in groups]
                self.batch = fixed_mixtures(model, groups, range(count))
            try:
                picture = paint_reconstruction(model, *self.batch, details=True)
            except UserError as error:  # the target is no image
                self.off = True
                warn(f'No pictures are drawn: {error}')
                return
        runner.visualizer.add_image('reconstruction', picture, step=runner.iter)
