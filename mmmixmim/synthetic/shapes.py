"""Synthetic scenes: shapes on crops of photographs, with a mask for each shape.

Shapes vary in size, angle, colour and texture, and occlude each other. Each class has
a mean hue, but the hues of classes overlap, so that telling them apart takes both
outline and colour. The photographs are the two bundled with scikit-learn.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

CLASSES = ('disc', 'square', 'triangle', 'star', 'cross')

# Supersampling factor of the outlines, for antialiasing.
SCALE = 4
# Standard deviation of the hue within a class, where 1 is the whole colour circle.
# The mean hues of classes are 0.2 apart.
HUE_DEVIATION = 0.045
# A shape is not drawn if it would leave less than this fraction of another visible.
LEAST_VISIBLE = 0.35


@dataclass
class Scene:
    """An image and its shapes.

    Attributes:
        image: RGB, uint8 (size, size, 3).
        labels: Class of each shape, an index into :data:`CLASSES`.
        masks: Visible pixels of each shape, bool (shapes, size, size).
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray


def draw_scene(rng: np.random.Generator, size: int, shapes: tuple[int, int]) -> Scene:
    """Draw a random scene.

    Args:
        rng: Random number generator.
        size: Height and width in pixels.
        shapes: Smallest and largest number of shapes, both inclusive. Scenes can
            have fewer: shapes that are tiny or would hide others are left out.

    Returns:
        The scene.
    """
    image = _texture(rng, size)
    labels, masks, areas = [], [], []
    for _ in range(rng.integers(shapes[0], shapes[1] + 1)):
        label = int(rng.integers(len(CLASSES)))
        outline = _outline(rng, CLASSES[label], size)
        mask = np.asarray(outline) > 127
        if mask.sum() < 30:
            continue
        visible = [(old & ~mask).sum() for old in masks]
        if any(
            v < LEAST_VISIBLE * area for v, area in zip(visible, areas, strict=True)
        ):
            continue
        image.paste(_fill(rng, label, size), mask=outline)
        masks = [old & ~mask for old in masks]
        labels.append(label)
        masks.append(mask)
        areas.append(mask.sum())
    noise = rng.normal(0, 4, (size, size, 3))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return Scene(pixels, labels, np.array(masks, dtype=bool).reshape(-1, size, size))


@lru_cache(maxsize=1)
def _photographs() -> list[Image.Image]:
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _texture(rng: np.random.Generator, size: int) -> Image.Image:
    """A crop of a photograph with random size, tint and blur."""
    photograph = _photographs()[rng.integers(2)]
    side = int(rng.integers(size // 2, 2 * size))
    side = min(side, *photograph.size)
    left, top = (int(rng.integers(length - side + 1)) for length in photograph.size)
    crop = photograph.crop((left, top, left + side, top + side)).resize((size, size))
    if rng.random() < 0.3:
        crop = crop.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))
    pixels = np.asarray(crop) * rng.uniform(0.4, 1.3, 3) + rng.uniform(-30, 60, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _fill(rng: np.random.Generator, label: int, size: int) -> Image.Image:
    """A colour near the mean hue of the class, blended with a texture."""
    hue = rng.normal(label / len(CLASSES), HUE_DEVIATION) % 1
    rgb = colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 1), rng.uniform(0.5, 1))
    colour = Image.new('RGB', (size, size), tuple(round(255 * value) for value in rgb))
    return Image.blend(colour, _texture(rng, size), float(rng.uniform(0, 0.4)))


def _outline(rng: np.random.Generator, name: str, size: int) -> Image.Image:
    """Antialiased mask of a shape with random position, size and angle."""
    canvas = Image.new('L', (SCALE * size, SCALE * size))
    draw = ImageDraw.Draw(canvas)
    radius = SCALE * size * rng.uniform(0.12, 0.3)
    x, y = rng.uniform(0.1 * size, 0.9 * size, 2) * SCALE
    if name == 'disc':
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    else:
        angle = rng.uniform(0, 2 * math.pi)
        points = [
            (x + radius * r * math.cos(a + angle), y + radius * r * math.sin(a + angle))
            for a, r in _polygon(name)
        ]
        draw.polygon(points, fill=255)
    return canvas.resize((size, size), Image.Resampling.BOX)


def _polygon(name: str) -> list[tuple[float, float]]:
    """Corners of a shape in polar coordinates (angle, radius)."""
    if name == 'star':
        return [(math.pi * i / 5, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
    if name == 'cross':
        corners = [(1, 0.3), (0.3, 0.3), (0.3, 1)]
        corners += [(-x, y) for x, y in reversed(corners)]
        corners += [(x, -y) for x, y in reversed(corners)]
        return [(math.atan2(y, x), math.hypot(x, y)) for x, y in corners]
    count = dict(square=4, triangle=3)[name]
    return [(2 * math.pi * i / count, 1.0) for i in range(count)]
