from .mixmim_decoder import MixMIMPretrainDecoder

__all__ = ['MixMIMPretrainDecoder']
