"""Pictures of reconstructions and predictions, and reports of runs."""

from .colours import RGBProjection
from .label_maps import draw_label_maps, paint_instances
from .mistakes import draw_confusion, draw_worst
from .mlflow_backend import MLflowVisBackend
from .reconstruction import (
    check_picture,
    draw_reconstruction,
    draw_training_images,
    paint_reconstruction,
)
from .report import render_report, write_report

__all__ = [
    'MLflowVisBackend',
    'RGBProjection',
    'check_picture',
    'draw_confusion',
    'draw_label_maps',
    'draw_reconstruction',
    'draw_training_images',
    'draw_worst',
    'paint_instances',
    'paint_reconstruction',
    'render_report',
    'write_report',
]
