"""Image loading for pretraining: the pipelines alone, and during training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose
from mmengine.runner import Runner
from PIL import Image, ImageFilter

from mmmixmim.registry import TRANSFORMS

CROP = dict(scale=224, crop_ratio_range=(0.2, 1.0), interpolation='bicubic')
PIPELINES = dict(
    ours=[
        dict(type='mmmixmim.LoadRandomResizedCrop', flip_prob=0.5, **CROP),
        dict(type='mmpretrain.PackInputs'),
    ],
    mmpretrain=[
        dict(type='LoadImageFromFile'),
        dict(type='mmpretrain.RandomResizedCrop', backend='pillow', **CROP),
        dict(type='RandomFlip', prob=0.5),
        dict(type='mmpretrain.PackInputs'),
    ],
)


def make_pipelines() -> dict[str, Compose]:
    """Build our and mmpretrain's pretraining pipelines, for 224 pixels."""
    return {
        name: Compose([TRANSFORMS.build(step) for step in steps])
        for name, steps in PIPELINES.items()
    }


def write_photos(folder: Path, number: int, size: tuple[int, int] = (375, 500)) -> None:
    """Write JPEGs of quality 90 with the file size of photographs.

    Args:
        folder: Target folder.
        number: Number of files.
        size: Height and width.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(number):
        # Photographs have detail at every scale.
        image = np.zeros((*size, 3))
        for radius in (0, 1, 2, 4, 8, 16, 32, 64):
            noise = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            blurred = np.asarray(noise.filter(ImageFilter.GaussianBlur(radius)))
            layer = blurred - blurred.mean()
            image += layer / layer.std() * (2 + 2 * radius**0.7)
        pixels = (128 + image).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:04}.jpg', quality=90)


def waiting_share(
    folder: Path,
    work_dir: Path,
    pipeline: list[dict],
    model: dict,
    workers: int,
    batch_size: int,
    iterations: int,
) -> dict[str, float]:
    """Train with MMEngine's Runner and measure how long it waits for images.

    A CPU trains in float32, a GPU in bfloat16 with fused AdamW.

    Args:
        folder: Folder of images.
        work_dir: Folder for the logs.
        pipeline: Configs of the transforms.
        model: Config of a pretraining model.
        workers: Number of dataloader workers.
        batch_size: Images per step.
        iterations: Number of measured steps; three more warm up.

    Returns:
        Means per step: ``seconds``, and the ``waiting`` seconds among them; and
        ``share``, waiting over seconds.
    """
    pipeline = [ConfigDict(step) for step in pipeline]
    dataset = dict(type='ImageFolder', data_root=str(folder), pipeline=pipeline)
    optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-4))
    if torch.cuda.is_available():
        optim_wrapper.update(type='AmpOptimWrapper', dtype='bfloat16')
        optim_wrapper['optimizer']['fused'] = True
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        # MMEngine shares a message hub between runs of the same name and second.
        experiment_name=str(work_dir),
        default_scope='mmmixmim',
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=True,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations + 3),
        optim_wrapper=optim_wrapper,
        default_hooks=dict(checkpoint=None),
        log_level='ERROR',
    )
    runner.train()
    seconds, waiting = (
        np.mean(runner.message_hub.get_scalar(f'train/{key}').data[0][3:])
        for key in ('time', 'data_time')
    )
    return dict(
        seconds=float(seconds), waiting=float(waiting), share=float(waiting / seconds)
    )
