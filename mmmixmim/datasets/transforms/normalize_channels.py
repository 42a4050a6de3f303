"""Normalise a loaded image as pretraining does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmmixmim.registry import TRANSFORMS
from mmmixmim.validation import UnreadableFileError, UserError

from ..no_data import check_no_data, pixel_weights
from ..readers.base import check_chosen, naming
from ..statistics import mean_and_std


@TRANSFORMS.register_module()
class NormalizeChannels(BaseTransform):
    """Normalise any channels, and put 0 where there is no data.

    For pipelines of mmdet and mmseg, whose data preprocessors normalise one or three
    channels: leave out their mean and std. The values are those that
    :class:`~mmmixmim.models.RasterDataPreprocessor` gives. Put it right behind the
    loader, since a resized image no longer tells which pixels had no data. Padding with
    0 shows the mean.

    **Required Keys:** ``img`` ((H, W, C) or (H, W))

    **Modified Keys:** ``img`` ((H, W, C), float32)

    Args:
        statistics: JSON file with mean and standard deviation, written by
            ``tools/measure_channels.py``. Defaults to None: see ``mean``.
        mean: Mean of each channel. Defaults to None: see ``statistics``.
        std: Standard deviation of each channel. Defaults to None, as ``mean``.
        channels: Which channels to take, counted from 0, in this order. Defaults to
            None: all.
        no_data: Value of pixels without data, in any of their channels; or 'nan'.
            Defaults to None: all pixels are data, and NaN is an error.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If mean and deviation are given twice, don't go together or are
            missing.
        UnreadableFileError: If an image has other channels, or has NaN where
            ``no_data`` is not set.
    """

    def __init__(
        self,
        statistics: str | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: Sequence[int] | None = None,
        no_data: float | str | None = None,
    ) -> None:
        mean, std = mean_and_std(mean, std, statistics)
        if mean is None:
            raise UserError(
                'NormalizeChannels needs statistics, the file that `python '
                'tools/measure_channels.py FOLDER --out FILE` writes, or mean and std.'
            )
        self.mean, self.std = np.float32(mean), np.float32(std)
        self.channels = None if channels is None else list(channels)
        self.no_data = check_no_data(no_data)

    def transform(self, results: dict) -> dict:
        """Normalise ``results['img']``."""
        pixels = results['img']
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        with naming(results.get('img_path', 'of the dataset')):
            check_chosen(self.channels, pixels.shape[2])
            if self.channels is not None:
                pixels = pixels[..., self.channels]
            if len(self.mean) not in (1, pixels.shape[2]):
                raise UnreadableFileError(
                    f'{pixels.shape[2]} channels are taken from it as (H, W, C), mean '
                    f'and std of {type(self).__name__} have {len(self.mean)}: measure '
                    'them on these images, set channels, or load it by LoadRaster'
                )
            weights = pixel_weights(pixels, self.no_data)
        image = pixels.astype(np.float32)
        if weights is not None:
            image[weights == 0] = self.mean  # the lowest float would overflow below
        results['img'] = (image - self.mean) / self.std
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(mean={self.mean.tolist()}, '
            f'std={self.std.tolist()}, channels={self.channels}, '
            f'no_data={self.no_data})'
        )
