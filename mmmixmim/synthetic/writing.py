"""Write scenes in the formats of COCO and ADE20K."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmmixmim.validation import UserError

from .shapes import CLASSES, Scene, draw_scene

# Value of the background in label maps. As in ADE20K, 0 means unlabelled.
BACKGROUND = 1
# Smallest image side, in pixels, at which shapes remain distinguishable.
LEAST_SIZE = 32


def write_dataset(
    root: str | Path,
    counts: dict[str, int],
    size: int = 96,
    shapes: tuple[int, int] = (2, 5),
    seed: int = 0,
) -> None:
    """Draw a dataset and write it to disk, deterministically.

    Each split has JPEGs in ``images/SPLIT``, boxes and masks in COCO's format in
    ``annotations/instances_SPLIT.json``, and label maps (PNG) in ``labels/SPLIT``
    with 1 for the background and ``i + 2`` for class ``i``.

    Args:
        root: Output folder. It is created if missing.
        counts: Number of images per split.
        size: Height and width of the images in pixels. Defaults to 96.
        shapes: Smallest and largest number of shapes to draw in an image. Defaults
            to (2, 5).
        seed: Random seed, not negative. Defaults to 0.

    Raises:
        UserError: If ``size`` or ``seed`` is too small, or an output folder holds
            files that would end up in the dataset.
    """
    if size < LEAST_SIZE:
        raise UserError(
            f'size must be at least {LEAST_SIZE} to tell shapes apart, got {size}.'
        )
    if seed < 0:
        raise UserError(f'seed must not be negative, got {seed}.')
    root = Path(root)
    for split, count in counts.items():
        for kind, suffix in (('images', 'jpg'), ('labels', 'png')):
            folder = root / kind / split
            folder.mkdir(parents=True, exist_ok=True)
            names = {f'{i:06}.{suffix}' for i in range(count)}
            others = sorted(path.name for path in folder.iterdir())
            others = [name for name in others if name not in names]
            if others:
                raise UserError(
                    f'{folder} has {len(others)} files that do not belong to this '
                    f'dataset, such as {others[0]}: delete {root} or choose another '
                    'folder.'
                )
    for index, (split, count) in enumerate(counts.items()):
        coco = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
        )
        for i in range(count):
            scene = draw_scene(np.random.default_rng((seed, index, i)), size, shapes)
            name = f'{i:06}'
            picture = Image.fromarray(scene.image)
            picture.save(root / 'images' / split / f'{name}.jpg', quality=92)
            labels = Image.fromarray(label_image(scene))
            labels.save(root / 'labels' / split / f'{name}.png')
            coco['images'].append(
                dict(id=i, file_name=f'{name}.jpg', height=size, width=size)
            )
            for annotation in coco_annotations(scene):
                annotation |= dict(id=len(coco['annotations']) + 1, image_id=i)
                coco['annotations'].append(annotation)
        path = root / 'annotations' / f'instances_{split}.json'
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco))


def label_image(scene: Scene) -> np.ndarray:
    """Label map, uint8 (size, size): 1 for the background, i + 2 for class i."""
    labels = np.full(scene.image.shape[:2], BACKGROUND, dtype=np.uint8)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        labels[mask] = label + BACKGROUND + 1
    return labels


def coco_annotations(scene: Scene) -> list[dict]:
    """COCO annotations of the shapes, without ``id`` and ``image_id``."""
    annotations = []
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        top, left = int(rows[0]), int(columns[0])
        box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
        annotations.append(
            dict(
                category_id=label + 1,
                bbox=box,
                area=int(mask.sum()),
                segmentation=dict(size=list(mask.shape), counts=run_lengths(mask)),
                iscrowd=0,
            )
        )
    return annotations


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: column-major, starting with a run of zeros."""
    flat = np.concatenate([[False], mask.flatten(order='F'), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes]))
    rest = mask.size - int(runs.sum())
    return [*map(int, runs), *([rest] if rest else [])]
