"""Draw what a pretrained model reconstructs."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from mmmixmim.checkpoint import load_whole
from mmmixmim.datasets import ImageFolder, RasterFolder
from mmmixmim.datasets.image_files import find_images
from mmmixmim.registry import MODELS
from mmmixmim.runtime import load_config
from mmmixmim.validation import UserError, check_int_between
from mmmixmim.visualization import check_picture, draw_reconstruction

from .run import Run, check_images


def reconstruct(
    run: str | Path,
    images: str | Path | None = None,
    out: str | Path | None = None,
    num: int = 8,
    seed: int = 0,
) -> Path:
    """Draw images, their mixtures and the reconstructions of a run.

    Args:
        run: Folder of a pretraining.
        images: Folder of other images. Defaults to None: those it was trained on.
        out: File of the picture. Defaults to ``reconstruction.png`` in the folder of
            the run.
        num: Number of images. Defaults to 8.
        seed: Seed of images, crops and masks, below 2 ** 32. Defaults to 0.

    Returns:
        The file.

    Raises:
        UserError: If there is no such run or image, or the seed is out of range.
    """
    check_int_between('--seed', seed, 0, 2**32 - 1)
    opened = Run.load(Path(run).expanduser())
    if opened.command != 'pretrain':
        raise UserError(
            f'{str(run)!r} is a {opened.command}, which reconstructs nothing: name the '
            'folder of a pretraining.'
        )
    out = Path(out) if out else opened.folder / 'reconstruction.png'
    check_picture(out)
    cfg = load_config(opened.config)
    loader = cfg.train_dataloader
    if images:
        _take(images, loader)
    else:
        check_images(cfg, 'bring them back, or name others with --images FOLDER')
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    set_random_seed(seed)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    load_whole(model, opened.checkpoint)
    model.to(get_device())
    loader.update(batch_size=num, num_workers=0, persistent_workers=False)
    loader.drop_last = False
    batch = next(iter(Runner.build_dataloader(loader, seed=seed)))
    draw_reconstruction(model, batch['inputs'], out)
    return out


def _take(images: str | Path, loader: Config) -> None:
    """Let a loader take the images of a folder, in place."""
    root, pipeline = Path(images).expanduser(), loader.dataset.pipeline
    kind = RasterFolder
    if pipeline[0].type == 'LoadRandomResizedCrop':
        kind = ImageFolder
    find_images(root, kind.EXTENSIONS)
    loader.sampler = dict(type='DefaultSampler', shuffle=True)
    loader.dataset = dict(type=kind.__name__, data_root=str(root), pipeline=pipeline)
