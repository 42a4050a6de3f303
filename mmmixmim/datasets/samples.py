"""What datasets of other libraries return, as samples of our pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import Compose
from PIL import Image
from torch import Tensor

from mmmixmim.registry import TRANSFORMS
from mmmixmim.validation import UserError

from .readers import ArrayReader, ImageReader, open_image

# Length of datasets without end.
ENDLESS = 1 << 40
_KEYS = ('img', 'image', 'images', 'pixel_values')


def build_pipeline(transforms: Sequence[dict | Callable]) -> Compose:
    """Build transforms by our names and mmpretrain's, whatever the default scope is."""
    return Compose(
        [
            TRANSFORMS.build(each) if isinstance(each, dict) else each
            for each in transforms
        ]
    )


def open_sample(sample: dict) -> ImageReader:
    """Open the image of a sample from :func:`as_sample`, or of a shard.

    Raises:
        UnreadableFileError: If it is no image of a supported kind.
    """
    if 'img' in sample:
        return ArrayReader(sample['img'])
    return open_image(sample['img_path'], data=sample.get('img_bytes'))


def has_mask(sample: dict) -> bool:
    """Whether a sample from :func:`as_sample` has a mask."""
    return 'mask' in sample or 'mask_path' in sample


def as_sample(item: object) -> dict:
    """Turn an item of a torch dataset or an iterable into a sample.

    Args:
        item: A path; a PIL image; an array (H, W), (H, W, C) or (C, H, W); a tensor
            (C, H, W) or (H, W); a tuple or list that starts with one of them, as
            ``(image, label)``; or a dict with one of them as ``img``, ``image``,
            ``images`` or ``pixel_values``, and maybe with a ``mask``.

    Returns:
        ``img`` or ``img_path``, and ``mask`` or ``mask_path`` if there is one, for
        :class:`LoadRasterCrop`. Labels are left out.

    Raises:
        UserError: If it is something else.
    """
    if isinstance(item, Mapping):
        name = next((key for key in _KEYS if key in item), None)
        if name is None:
            raise UserError(
                f'An item of the dataset has the keys {", ".join(map(str, item))}: '
                f'expected an image as {" or ".join(_KEYS)}.'
            )
        sample = as_sample(item[name])
        if item.get('mask') is not None:
            mask = as_sample(item['mask'])
            sample |= {key.replace('img', 'mask'): mask[key] for key in mask}
        return sample
    if isinstance(item, (tuple, list)) and len(item):
        return as_sample(item[0])
    if isinstance(item, (str, Path)):
        return dict(img_path=str(item))
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        item = item.float() if item.dtype == torch.bfloat16 else item
        if item.ndim == 3 and item.shape[0] > item.shape[1]:
            raise UserError(
                f'A tensor of shape {tuple(item.shape)} has more channels than rows, '
                'expected (C, H, W): permute it, or use larger images.'
            )
        return dict(img=(item.permute(1, 2, 0) if item.ndim == 3 else item).numpy())
    if isinstance(item, Image.Image):
        item = item.convert('RGB') if item.mode in ('P', 'PA') else item
        return dict(img=np.asarray(item))
    if isinstance(item, np.ndarray):
        return dict(img=item)
    raise UserError(
        f'An item of the dataset is a {type(item).__name__}: expected a path, a PIL '
        'image, an array or a tensor, or a tuple or dict with one.'
    )
