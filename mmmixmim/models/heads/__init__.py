from .mixmim_head import MixMIMPretrainHead

__all__ = ['MixMIMPretrainHead']
