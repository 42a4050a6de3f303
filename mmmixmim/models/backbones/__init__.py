from .mixmim_transformer import MixMIMTransformer
from .pvt import MixMIMPyramidVisionTransformer
from .swin import MixMIMSwinTransformer
from .swin_v2 import MixMIMSwinTransformerV2

__all__ = [
    'MixMIMPyramidVisionTransformer',
    'MixMIMSwinTransformer',
    'MixMIMSwinTransformerV2',
    'MixMIMTransformer',
]
