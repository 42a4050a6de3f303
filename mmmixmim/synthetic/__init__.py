"""Small datasets that are drawn, for trying out detection and segmentation."""

from .shapes import CLASSES, Scene, draw_scene
from .writing import write_dataset

__all__ = ['CLASSES', 'Scene', 'draw_scene', 'write_dataset']
