from .mixmim import MixMIM

__all__ = ['MixMIM']
