"""Draw what a pretrained model reconstructs."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmmixmim.datasets import ImageFolder, RasterFolder
from mmmixmim.datasets.image_files import find_images
from mmmixmim.runtime import load_config, naming_full_memory
from mmmixmim.validation import UserError, check_int_between, check_positive_int
from mmmixmim.visualization import check_picture, draw_training_images

from .run import Run
from .training import check_images


@naming_full_memory('choose a smaller --num')
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
        num: Number of images, rounded up to whole mixtures. Defaults to 8.
        seed: Seed of images, crops and masks, below 2 ** 32. Defaults to 0.

    Returns:
        The file.

    Raises:
        UserError: If there is no such run or image, or number or seed are wrong.
    """
    check_positive_int('--num', num)
    check_int_between('--seed', seed, 0, 2**32 - 1)
    opened = Run.load(Path(run).expanduser())
    if opened.command != 'pretrain':
        raise UserError(
            f'{str(run)!r} is a {opened.command}, which reconstructs nothing: name the '
            'folder of a pretraining.'
        )
    file = Path(out) if out else opened.folder / 'reconstruction.png'
    check_picture(file)
    if not out and file.is_symlink():  # of whoever made the folder
        file.unlink()
    cfg = load_config(opened.config)
    if images:
        _take(images, cfg.train_dataloader)
    else:
        check_images(cfg, 'bring them back, or name others with --images FOLDER')
    cfg.model.backbone.init_cfg = None
    draw_training_images(cfg, opened.checkpoint, file, num, seed)
    return file


def _take(images: str | Path, loader: Config) -> None:
    """Let a loader take the images of a folder, in place."""
    root, pipeline = Path(images).expanduser(), loader.dataset.pipeline
    kind = RasterFolder
    if pipeline[0].type == 'LoadRandomResizedCrop':
        kind = ImageFolder
    find_images(root, kind.EXTENSIONS)
    loader.sampler = dict(type='DefaultSampler', shuffle=True)
    loader.dataset = dict(type=kind.__name__, data_root=str(root), pipeline=pipeline)
