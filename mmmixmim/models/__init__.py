"""MixMIM's encoder, decoder, head and algorithm."""

from .backbones import MixMIMTransformer
from .heads import MixMIMPretrainHead
from .mixing import TokenOwnership
from .necks import MixMIMPretrainDecoder
from .selfsup import MixMIM

__all__ = [
    'MixMIM',
    'MixMIMPretrainDecoder',
    'MixMIMPretrainHead',
    'MixMIMTransformer',
    'TokenOwnership',
]
