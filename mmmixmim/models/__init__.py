"""MixMIM's encoder, decoder, head and algorithm."""

from .backbones import (
    MixMIMConvNeXt,
    MixMIMHiViT,
    MixMIMSwinTransformer,
    MixMIMTransformer,
)
from .heads import MixMIMPretrainHead
from .mixing import TokenOwnership, check_encoder
from .necks import MixMIMPretrainDecoder
from .selfsup import MixMIM

__all__ = [
    'MixMIM',
    'MixMIMConvNeXt',
    'MixMIMHiViT',
    'MixMIMPretrainDecoder',
    'MixMIMPretrainHead',
    'MixMIMSwinTransformer',
    'MixMIMTransformer',
    'TokenOwnership',
    'check_encoder',
]
