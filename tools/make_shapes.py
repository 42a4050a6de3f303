"""Draw a small dataset of shapes for detection and segmentation.

JPEGs with COCO's JSON and ADE20K's kind of label images, and a picture that shows
some of them. The same options give the same dataset.
"""

import argparse
from pathlib import Path

import numpy as np

from mmmixmim.synthetic import CLASSES, draw_scene, write_dataset
from mmmixmim.utils import positive_int
from mmmixmim.visualization import draw_label_maps, paint_instances


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'root', nargs='?', type=Path, default='data/shapes', help='folder to write to'
    )
    parser.add_argument(
        '--unlabelled',
        type=positive_int,
        default=3500,
        help='images for pretraining, whose labels are written but not needed',
    )
    parser.add_argument(
        '--train', type=positive_int, default=500, help='labelled training images'
    )
    parser.add_argument(
        '--val', type=positive_int, default=200, help='validation images'
    )
    parser.add_argument(
        '--size', type=positive_int, default=96, help='height and width in pixels'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the drawing')
    return parser.parse_args()


def draw_preview(path: Path, size: int, seed: int, count: int = 6) -> None:
    """Draw some scenes beside the masks of their shapes."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng, size, (2, 5)) for _ in range(count)]
    masks = [
        paint_instances(np.array(scene.labels), scene.masks, (size, size))
        for scene in scenes
    ]
    pictures = [scene.image for scene in scenes]
    draw_label_maps(pictures, dict(masks=masks), list(CLASSES), path)


def main() -> None:
    """Draw and write."""
    args = parse_args()
    counts = dict(unlabelled=args.unlabelled, train=args.train, val=args.val)
    write_dataset(args.root, counts, args.size, seed=args.seed)
    draw_preview(args.root / 'preview.png', args.size, args.seed)
    print(f'{args.root}: {", ".join(f"{n} {split}" for split, n in counts.items())}')


if __name__ == '__main__':
    main()
