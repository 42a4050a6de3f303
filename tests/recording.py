"""Types for configs of tests that note what each process of a run sees.

Configs import this module: ``custom_imports = dict(imports='tests.recording')``.
"""

import re
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmmixmim.models import MixMIM
from mmmixmim.registry import HOOKS, MODELS


@MODELS.register_module()
class RecordingMixMIM(MixMIM):
    """Saves images, cells and loss of each batch, a file per process.

    Args:
        folder: Where it saves them.
        fixed: Whether the masks follow from the images, so that any two runs on the
            same pairs have the same masks.
    """

    def __init__(self, *args, folder, fixed, **kwargs):
        super().__init__(*args, **kwargs)
        self.folder = Path(folder)
        self.fixed = fixed
        self.seen = []

    def loss(self, inputs, data_samples=None, mask=None):
        ownership = self.ownership(inputs, self.half(inputs) if self.fixed else mask)
        losses = super().loss(inputs, data_samples, ownership)
        batch = dict(images=inputs, mask=ownership.mask, loss=losses['loss'].detach())
        self.seen.append({name: value.clone() for name, value in batch.items()})
        torch.save(self.seen, self.folder / f'seen{get_rank()}.pt')
        return losses

    def half(self, images):
        """Hide the darker half of each image's cells."""
        cells = self.head.patchify(images).mean(2)
        hidden = cells < cells.median(1, keepdim=True).values
        return hidden.unflatten(
            1, [side // self.backbone.stride for side in images.shape[2:]]
        )


@HOOKS.register_module()
class RecordWeights(Hook):
    """Saves the weights with which each process ends."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def after_train(self, runner):
        weights = {
            re.sub('^module.', '', name): value
            for name, value in runner.model.state_dict().items()
        }
        torch.save(weights, self.folder / f'weights{get_rank()}.pt')
