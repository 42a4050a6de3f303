from .mixmim_transformer import MixMIMTransformer
from .swin import MixMIMSwinTransformer

__all__ = ['MixMIMSwinTransformer', 'MixMIMTransformer']
