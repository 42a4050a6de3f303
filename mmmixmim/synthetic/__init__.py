"""Small synthetic datasets for detection and segmentation."""

from .shapes import CLASSES, Scene, draw_scene
from .writing import BACKGROUND, write_dataset

__all__ = ['BACKGROUND', 'CLASSES', 'Scene', 'draw_scene', 'write_dataset']
