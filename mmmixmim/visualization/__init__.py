"""Pictures of reconstructions and predictions."""

from .label_maps import draw_label_maps, paint_instances
from .mlflow_backend import MLflowVisBackend
from .reconstruction import draw_reconstruction, paint_reconstruction

__all__ = [
    'MLflowVisBackend',
    'draw_label_maps',
    'draw_reconstruction',
    'paint_instances',
    'paint_reconstruction',
]
