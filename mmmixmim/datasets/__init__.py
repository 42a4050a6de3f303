"""Datasets and data transforms."""

from .digits import Digits, ScatteredDigits
from .image_folder import ImageFolder
from .image_table import ImageTable
from .inaturalist import INaturalist
from .mixture_groups import MixtureGroups
from .raster_folder import RasterFolder
from .shards import ShardStream, write_shards
from .statistics import ChannelStatistics, measure_channels
from .transforms import (
    LoadImageOrSkip,
    LoadRandomResizedCrop,
    LoadRaster,
    LoadRasterCrop,
    NormalizeChannels,
)
from .unreadable import naming_lost_files, unreadable_images
from .wrapped import WrappedDataset, WrappedIterable, named_dataset

__all__ = [
    'ChannelStatistics',
    'Digits',
    'INaturalist',
    'ImageFolder',
    'ImageTable',
    'LoadImageOrSkip',
    'LoadRandomResizedCrop',
    'LoadRaster',
    'LoadRasterCrop',
    'MixtureGroups',
    'NormalizeChannels',
    'RasterFolder',
    'ScatteredDigits',
    'ShardStream',
    'WrappedDataset',
    'WrappedIterable',
    'measure_channels',
    'named_dataset',
    'naming_lost_files',
    'unreadable_images',
    'write_shards',
]
