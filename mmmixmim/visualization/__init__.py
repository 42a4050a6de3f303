"""Figures of reconstructions and predictions."""

from .label_maps import draw_label_maps, paint_instances
from .mistakes import draw_confusion, draw_worst
from .reconstruction import draw_reconstruction

__all__ = [
    'draw_confusion',
    'draw_label_maps',
    'draw_reconstruction',
    'draw_worst',
    'paint_instances',
]
