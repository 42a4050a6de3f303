"""Load an image of any kind whole."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform

from mmmixmim.registry import TRANSFORMS

from ..readers import open_image


@TRANSFORMS.register_module()
class LoadRaster(BaseTransform):
    """``LoadImageFromFile`` for all files that pretraining reads.

    For pipelines of mmdet, mmseg and mmpretrain. See
    :func:`~mmmixmim.datasets.readers.open_image`; :class:`NormalizeChannels` comes
    next.

    **Required Keys:** ``img_path``

    **Added Keys:** ``img`` ((H, W, C), channels and values of the file),
    ``img_shape``, ``ori_shape``

    Args:
        backend_args: Arguments of MMEngine's file backend. Defaults to None.

    Raises:
        UnreadableFileError: If a file cannot be read.
    """

    def __init__(self, backend_args: dict | None = None) -> None:
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Load the image at ``results['img_path']``."""
        with open_image(results['img_path'], self.backend_args) as image:
            # A copy, as it may be a view of the file.
            results['img'] = np.array(image.read(), order='C')
        results['img_shape'] = results['ori_shape'] = image.size
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(backend_args={self.backend_args})'
