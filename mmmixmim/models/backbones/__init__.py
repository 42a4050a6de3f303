from .convnext import MixMIMConvNeXt
from .hivit import MixMIMHiViT
from .mixmim_transformer import MixMIMTransformer
from .swin import MixMIMSwinTransformer

__all__ = [
    'MixMIMConvNeXt',
    'MixMIMHiViT',
    'MixMIMSwinTransformer',
    'MixMIMTransformer',
]
