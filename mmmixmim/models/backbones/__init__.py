from .mixmim_transformer import MixMIMTransformer

__all__ = ['MixMIMTransformer']
