"""Pictures of images, their mixtures and their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmmixmim.checkpoint import load_whole
from mmmixmim.models import MixMIM
from mmmixmim.models.mixing import TokenOwnership
from mmmixmim.registry import MODELS
from mmmixmim.runtime import training_device
from mmmixmim.runtime.files import check_out
from mmmixmim.validation import UserError

from .colours import RGBProjection

_GAP = 4  # pixels between images
_BRIGHTEST = 64  # grey levels of error
# Of photos, in grey levels; errors of other images are shown like those.
_DEVIATION = 57


def check_picture(path: str | Path) -> None:
    """Raise a UserError unless --out can be the name of a picture."""
    kinds = Image.registered_extensions()
    endings = [ending for ending, kind in kinds.items() if kind in Image.SAVE]
    check_out(Path(path), 'a picture, ending in .png or .jpg', endings)


def draw_reconstruction(
    model: MixMIM,
    images: Tensor,
    path: str | Path,
    mask: Tensor | TokenOwnership | None = None,
    details: bool = False,
    bands: Sequence[int] | None = None,
) -> None:
    """Save a picture with rows for the originals, mixtures and reconstructions.

    Args:
        model: See :func:`paint_reconstruction`.
        images: See :func:`paint_reconstruction`.
        path: Output file. Its extension sets the format, and missing parent folders
            are created.
        mask: See :func:`paint_reconstruction`.
        details: See :func:`paint_reconstruction`.
        bands: See :func:`paint_reconstruction`.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint_reconstruction(model, images, mask, details, bands)).save(
        path
    )


def draw_training_images(
    cfg: Config, checkpoint: str | Path, path: str | Path, num: int, seed: int, **shown
) -> None:
    """Draw what a checkpoint reconstructs of the training images of a config.

    Args:
        cfg: Pretraining config.
        checkpoint: Its checkpoint, of any format.
        path: Output file.
        num: Number of images, rounded up to whole mixtures. If there are fewer, as many
            whole mixtures as they make.
        seed: Seed of images, crops and masks.
        **shown: See :func:`draw_reconstruction`.

    Raises:
        UserError: If the images make no mixture.
    """
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    set_random_seed(seed)
    model = MODELS.build(cfg.model)
    load_whole(model, checkpoint)
    model.to(training_device())
    # Whole mixtures: an image without a partner would be mixed with itself.
    group = model.mixture_size
    wanted = -(-num // group) * group
    loader = dict(cfg.train_dataloader, batch_size=wanted, num_workers=0)
    loader.update(persistent_workers=False, drop_last=False)
    batch = next(iter(Runner.build_dataloader(loader, seed=seed)))
    images = batch['inputs']
    whole = len(images) // group * group
    if not whole:
        raise UserError(
            f'A mixture needs {group} images, and there are {len(images)}: add images.'
        )
    draw_reconstruction(model, images[:whole], path, **shown)


@torch.no_grad()
def paint_reconstruction(
    model: MixMIM,
    images: Tensor,
    mask: Tensor | TokenOwnership | None = None,
    details: bool = False,
    bands: Sequence[int] | None = None,
) -> np.ndarray:
    """Paint rows of the originals, mixtures and reconstructions.

    The encoder sees only the mixed images. Each image occurs in two of them, its
    own mixture and its partner's. Each cell of a reconstruction is predicted from
    the mixture that does not show it. With normalised targets, predictions get the
    mean and standard deviation of the true patches.

    Args:
        model: The pretrained model. It is switched to evaluation mode.
        images: Batch from the dataloader, before normalisation, (B, C, H, W).
            Image i is mixed with image B - 1 - i. Of mixtures of more than two images
            an incomplete one at the end is left out.
        mask: Cell mask (1 or B, H / stride, W / stride), 1 where the partner shows, or
            the ownership made of it. Defaults to None: random.
        details: Whether to add rows for the visible cells, for the predictions of
            hidden cells pasted into the original, and for the root mean square error of
            each cell, from 0 (black) to 64 or more of 255 grey levels (bright).
            Defaults to False.
        bands: Three channels to show as red, green and blue, or one to show as grey.
            Defaults to None: see :class:`RGBProjection`.

    Returns:
        RGB, uint8 (height, width, 3). Small images are enlarged.
    """
    model.eval()
    if model.num_images > 2:  # whole mixtures
        images = images[: len(images) // model.num_images * model.num_images or None]
    preprocessor = model.data_preprocessor
    inputs = preprocessor(dict(inputs=images, data_samples=None))['inputs']
    weight = None
    if images.is_floating_point() and images.isnan().any():  # pixels without data
        weight = (~images.isnan().any(1)).float().to(inputs.device)
    ownership = model.ownership(inputs, mask)
    result = model.reconstruct(inputs, ownership, weight)
    original, mixed, reconstructed = (
        _to_levels(each, preprocessor)
        for each in (inputs, result['mixed'], result['reconstruction'])
    )
    eight_bits = images.dtype == torch.uint8
    project = RGBProjection(original, bands, stretch=not eight_bits, weight=weight)

    def to_rgb(batch: Tensor) -> np.ndarray:
        return np.stack([project(image) for image in batch])

    rows = dict(
        original=to_rgb(original),
        mixed=to_rgb(mixed),
        reconstructed=to_rgb(reconstructed),
    )
    if not details:
        return _tile(rows)
    hidden = ownership.at(*inputs.shape[2:]) != 0
    difference = reconstructed - original
    if not eight_bits and hasattr(preprocessor, 'std'):
        difference = difference / preprocessor.std * _DEVIATION
    return _tile(_detail_rows(rows, hidden, difference, model.backbone.stride))


def _detail_rows(
    rows: dict[str, np.ndarray], hidden: Tensor, difference: Tensor, stride: int
) -> dict[str, np.ndarray]:
    """Add rows for the visible cells, the pasted predictions, and the errors."""
    error = difference.square().mean(1, keepdim=True)
    error = torch.nn.functional.avg_pool2d(error, stride).sqrt()
    error = error.repeat_interleave(stride, 2).repeat_interleave(stride, 3)[:, 0]
    shares = (error / _BRIGHTEST).clamp(0, 1).cpu().numpy()
    heat = colormaps['inferno'](shares)[..., :3]
    concealed = hidden.expand(error.shape)[..., None].cpu().numpy()
    return dict(
        original=rows['original'],
        visible=np.where(concealed, np.uint8(127), rows['original']),
        mixed=rows['mixed'],
        reconstructed=rows['reconstructed'],
        pasted=np.where(concealed, rows['reconstructed'], rows['original']),
        error=(255 * heat).round().astype(np.uint8),
    )


def _to_levels(batch: Tensor, preprocessor: torch.nn.Module) -> Tensor:
    """Undo the normalisation of images (B, C, H, W)."""
    if hasattr(preprocessor, 'std'):
        batch = batch * preprocessor.std + preprocessor.mean
    return batch


def _tile(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Arrange images (B, H, W, 3) of each row on white, behind the row's name."""
    count, height, width, _ = next(iter(rows.values())).shape
    zoom = -(-128 // width)
    height, width = height * zoom, width * zoom
    # Legible where the picture is shown at the width of half a page.
    pixels = max(13, min(height // 3, count * (width + _GAP) // 36))
    font = ImageFont.load_default(pixels)
    left = round(max(font.getlength(name) for name in rows)) + 3 * _GAP
    size = left + count * (width + _GAP), len(rows) * (height + _GAP)
    canvas = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(canvas)
    for i, (name, batch) in enumerate(rows.items()):
        top = i * (height + _GAP)
        draw.text((_GAP, top + height / 2), name, 'black', font, anchor='lm')
        for j, image in enumerate(batch):
            enlarged = Image.fromarray(image).resize(
                (width, height), Image.Resampling.NEAREST
            )
            canvas.paste(enlarged, (left + j * (width + _GAP), top))
    return np.asarray(canvas)
