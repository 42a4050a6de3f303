from .mixmim import MixMIM
from .raster_preprocessor import RasterClsDataPreprocessor, RasterDataPreprocessor

__all__ = ['MixMIM', 'RasterClsDataPreprocessor', 'RasterDataPreprocessor']
