"""Pictures of reconstructions and predictions, and reports of runs."""

from .label_maps import draw_label_maps, paint_instances
from .mlflow_backend import MLflowVisBackend
from .reconstruction import draw_reconstruction, paint_reconstruction
from .report import render_report, write_report

__all__ = [
    'MLflowVisBackend',
    'draw_label_maps',
    'draw_reconstruction',
    'paint_instances',
    'paint_reconstruction',
    'render_report',
    'write_report',
]
