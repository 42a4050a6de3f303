from ._pretrained import LoadsPretrained
from .convnext import MixMIMConvNeXt
from .hivit import MixMIMHiViT
from .mixmim_transformer import MixMIMTransformer
from .pvt import MixMIMPyramidVisionTransformer
from .swin import MixMIMSwinTransformer
from .swin_v2 import MixMIMSwinTransformerV2

__all__ = [
    'LoadsPretrained',
    'MixMIMConvNeXt',
    'MixMIMHiViT',
    'MixMIMPyramidVisionTransformer',
    'MixMIMSwinTransformer',
    'MixMIMSwinTransformerV2',
    'MixMIMTransformer',
]
