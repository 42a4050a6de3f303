"""Random batches for any config."""

from __future__ import annotations

import torch
from mmengine.config import Config
from torch import nn


def random_batch(
    cfg: Config, model: nn.Module, number: int, size: tuple[int, int]
) -> dict:
    """Make a random batch as the dataloader of the model would.

    Args:
        cfg: The config; its default scope tells what labels the model takes.
        model: The model.
        number: Number of images.
        size: Height and width in pixels.

    Returns:
        ``inputs`` and ``data_samples`` for the model's data preprocessor.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        # Eight objects per image; their classes do not affect the cost.
        return demo_mm_inputs(
            number, (3, *size), [8] * number, num_classes=2, with_mask=True
        )
    shape = (number, image_channels(model), *size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    if scope == 'mmseg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        images = list(images)
        meta = dict(img_shape=size, ori_shape=size)
        classes = model.decode_head.num_classes
        labels = torch.randint(0, classes, (number, 1, *size))
        samples = [
            SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=each))
            for each in labels
        ]
    else:
        from mmpretrain.structures import DataSample

        samples = [DataSample().set_gt_label(0) for _ in images]
    return dict(inputs=images, data_samples=samples)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its first convolution."""
    return next(p.shape[1] for p in model.backbone.parameters() if p.ndim == 4)
