from .held_out import fixed_mixtures
from .mixmim import MixMIM

__all__ = ['MixMIM', 'fixed_mixtures']
