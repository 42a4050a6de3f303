"""MixMIM's encoder, decoder, head and algorithm."""

from .backbones import (
    LoadsPretrained,
    MixMIMConvNeXt,
    MixMIMHiViT,
    MixMIMPyramidVisionTransformer,
    MixMIMSwinTransformer,
    MixMIMSwinTransformerV2,
    MixMIMTransformer,
)
from .heads import MixMIMPretrainHead
from .mixing import TokenOwnership, check_encoder
from .necks import MixMIMPretrainDecoder
from .raster_preprocessor import RasterClsDataPreprocessor, RasterDataPreprocessor
from .selfsup import MixMIM

__all__ = [
    'LoadsPretrained',
    'MixMIM',
    'MixMIMConvNeXt',
    'MixMIMHiViT',
    'MixMIMPretrainDecoder',
    'MixMIMPretrainHead',
    'MixMIMPyramidVisionTransformer',
    'MixMIMSwinTransformer',
    'MixMIMSwinTransformerV2',
    'MixMIMTransformer',
    'RasterClsDataPreprocessor',
    'RasterDataPreprocessor',
    'TokenOwnership',
    'check_encoder',
]
