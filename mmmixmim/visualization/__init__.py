"""Figures of reconstructions and predictions."""

from .colours import RGBProjection
from .label_maps import draw_label_maps, paint_instances
from .reconstruction import draw_reconstruction

__all__ = [
    'RGBProjection',
    'draw_label_maps',
    'draw_reconstruction',
    'paint_instances',
]
