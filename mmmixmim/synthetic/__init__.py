"""Small synthetic datasets for detection and segmentation."""

from .shapes import CLASSES, draw_scene
from .writing import BACKGROUND, write_dataset

__all__ = ['BACKGROUND', 'CLASSES', 'draw_scene', 'write_dataset']
