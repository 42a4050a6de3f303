from .held_out import fixed_mixtures
from .mixmim import MixMIM
from .raster_preprocessor import RasterDataPreprocessor

__all__ = ['MixMIM', 'RasterDataPreprocessor', 'fixed_mixtures']
