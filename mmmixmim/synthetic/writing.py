"""Write scenes as COCO's and ADE20K's datasets are written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmmixmim.validation import UserError

from .shapes import CLASSES, Scene, draw_scene

# Value of the background in label images. As in ADE20K, 0 means unlabelled.
BACKGROUND = 1
# Pixels a side that leave the smallest shape some outline.
LEAST_SIZE = 32


def write_dataset(
    root: str | Path,
    counts: dict[str, int],
    size: int = 96,
    shapes: tuple[int, int] = (2, 5),
    seed: int = 0,
) -> None:
    """Draw and write a dataset, the same one for the same arguments.

    For each split there are JPEGs in ``images/SPLIT``, COCO's
    ``annotations/instances_SPLIT.json`` with boxes and masks, and in
    ``labels/SPLIT`` PNGs whose value 1 is the background and ``i + 2`` the class
    ``i``.

    Args:
        root: The folder to make.
        counts: Number of images of each split.
        size: Height and width of the images in pixels.
        shapes: Smallest and largest number of shapes to draw in an image.
        seed: Seed of the first image; each image has its own.

    Raises:
        ValueError: If a folder has other files, which would get into the dataset, if
            the images are too small for shapes, or the seed is negative.
    """
    if size < LEAST_SIZE:
        raise UserError(
            f'size is {size}, too small to tell shapes: draw at least {LEAST_SIZE}.'
        )
    if seed < 0:
        raise UserError(f'seed is {seed}, expected 0 or more.')
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
                    f'{folder} has {len(others)} files that are not of this dataset, '
                    f'as {others[0]}: delete {root}, or name another folder.'
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
    """Class of each pixel, uint8 (size, size): 1 background, i + 2 class i."""
    labels = np.full(scene.image.shape[:2], BACKGROUND, dtype=np.uint8)
    for label, mask in zip(scene.labels, scene.masks, strict=True):
        labels[mask] = label + BACKGROUND + 1
    return labels


def coco_annotations(scene: Scene) -> list[dict]:
    """COCO's entries of the shapes, without the ids of entry and image."""
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
    """COCO's uncompressed run lengths: down the columns, zeros first."""
    flat = np.concatenate([[False], mask.flatten(order='F'), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes]))
    rest = mask.size - int(runs.sum())
    return [*map(int, runs), *([rest] if rest else [])]
