"""Normalise images of any number of channels, some of whose pixels hold no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor

from mmmixmim.datasets.statistics import mean_and_std
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError


@MODELS.register_module()
class RasterDataPreprocessor(SelfSupDataPreprocessor):
    """``SelfSupDataPreprocessor`` for any channels, which turns NaN into 0.

    MMEngine's normalisation takes one or three channels, and a single NaN would reach
    every token. NaN marks pixels without data, see
    :class:`~mmmixmim.datasets.LoadRasterCrop`. They are filled after normalisation, so
    they show the channel's mean.

    Args:
        mean: Mean of each channel. Defaults to None: no normalisation, if
            ``statistics`` is None too.
        std: Standard deviation of each channel. Defaults to None, as ``mean``.
        statistics: JSON file with both, written by ``tools/measure_channels.py``.
            Defaults to None.
        **kwargs: See ``SelfSupDataPreprocessor``.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If mean and deviation are given twice or don't go together, or
            ``to_rgb`` is set.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        statistics: str | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if self._channel_conversion:
            raise UserError(
                'RasterDataPreprocessor keeps the order of the channels, got '
                'to_rgb=True: leave it out, or replace the config of the data '
                'preprocessor with _delete_=True.'
            )
        mean, std = mean_and_std(mean, std, statistics)
        if mean is None:
            return
        self._enable_normalize = True
        for name, values in (('mean', mean), ('std', std)):
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise a batch: ``inputs`` (B, C, H, W), or several, to float32.

        Raises:
            UserError: If the batch has other channels than mean and std.
        """
        inputs = data['inputs']
        several = isinstance(inputs, (list, tuple))
        if self._enable_normalize:
            _check_channels(inputs[0] if several else inputs, self.mean)
        result = super().forward(data, training)
        images = result['inputs']
        result['inputs'] = [*map(_filled, images)] if several else _filled(images)
        return result


@MODELS.register_module()
class RasterClsDataPreprocessor(ClsDataPreprocessor):
    """``ClsDataPreprocessor`` whose images may have pixels without data.

    NaN marks them, see :class:`~mmmixmim.datasets.LoadRasterCrop`. They are filled with
    the channel's mean, which is 0 after normalisation, before images are mixed.

    Args:
        mean: Mean of each channel. Defaults to None: no normalisation, if
            ``statistics`` is None too.
        std: Standard deviation of each channel. Defaults to None, as ``mean``.
        statistics: See :class:`RasterDataPreprocessor`. Defaults to None.
        **kwargs: See ``ClsDataPreprocessor``.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If mean and deviation are given twice or don't go together, or
            ``to_rgb`` is set.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        statistics: str | None = None,
        **kwargs,
    ) -> None:
        mean, std = mean_and_std(mean, std, statistics)
        super().__init__(mean, std, **kwargs)
        if self.to_rgb:
            raise UserError(
                'RasterClsDataPreprocessor keeps the order of the channels, got '
                'to_rgb=True: leave it out.'
            )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise a batch: ``inputs`` (B, C, H, W) to float32.

        Raises:
            UserError: If the batch has other channels than mean and std.
        """
        inputs = self.cast_data(data['inputs'])
        if isinstance(inputs, torch.Tensor):
            inputs = self._with_mean(inputs)
        else:  # of pseudo_collate
            inputs = [self._with_mean(image) for image in inputs]
        return super().forward(data | dict(inputs=inputs), training)

    def _with_mean(self, images: torch.Tensor) -> torch.Tensor:
        if self._enable_normalize:
            _check_channels(images, self.mean)
        if not images.is_floating_point():
            return images
        fill = self.mean if self._enable_normalize else images.new_zeros(())
        return torch.where(images.isnan(), fill, images)


def _check_channels(images: torch.Tensor, mean: torch.Tensor) -> None:
    """Raise unless (..., C, H, W) has a mean for each channel, or one for all."""
    channels = images.shape[-3]
    if len(mean) not in (1, channels):
        raise UserError(
            f'The images have {channels} channels, mean and std of the data '
            f'preprocessor {len(mean)}: measure them on these images, and set channels '
            'of LoadRasterCrop and in_channels of the backbone to fit.'
        )


def _filled(images: torch.Tensor) -> torch.Tensor:
    """Put 0 where there is no data."""
    return (
        images.masked_fill(images.isnan(), 0) if images.is_floating_point() else images
    )
