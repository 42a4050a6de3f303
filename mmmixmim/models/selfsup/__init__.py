from .mixmim import MixMIM
from .raster_preprocessor import RasterDataPreprocessor

__all__ = ['MixMIM', 'RasterDataPreprocessor']
