"""MixMIM's encoder, decoder, head and algorithm."""

from .backbones import MixMIMTransformer
from .heads import MixMIMPretrainHead
from .necks import MixMIMPretrainDecoder
from .selfsup import MixMIM
from .utils import TokenOwnership

__all__ = [
    'MixMIM',
    'MixMIMPretrainDecoder',
    'MixMIMPretrainHead',
    'MixMIMTransformer',
    'TokenOwnership',
]
