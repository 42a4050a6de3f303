"""Draw a small dataset of shapes for detection and segmentation.

Writes JPEGs with annotations in the formats of COCO (JSON) and ADE20K (label images),
and a preview of both. The same options give the same dataset.
"""

import argparse
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from mmmixmim.runtime import one_line_errors, positive_int, require
from mmmixmim.synthetic import BACKGROUND, CLASSES, write_dataset
from mmmixmim.visualization import draw_label_maps, paint_instances


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        'root', nargs='?', type=Path, default='data/shapes', help='output folder'
    )
    parser.add_argument(
        '--unlabelled',
        type=positive_int,
        default=3500,
        help='images for pretraining; their labels are written, too',
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
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    return parser.parse_args()


def draw_preview(root: Path, count: int = 6) -> None:
    """Draw the first validation images next to their labels, as read from the files."""
    from pycocotools.coco import COCO

    coco = COCO(root / 'annotations' / 'instances_val.json')
    pictures, masks, labels = [], [], []
    for entry in coco.loadImgs(coco.getImgIds()[:count]):
        name, size = Path(entry['file_name']), (entry['height'], entry['width'])
        pictures.append(np.asarray(Image.open(root / 'images' / 'val' / name)))
        found = coco.loadAnns(coco.getAnnIds(imgIds=entry['id']))
        kinds = np.array([each['category_id'] - 1 for each in found])
        shapes = [coco.annToMask(each).astype(bool) for each in found]
        masks.append(paint_instances(kinds, shapes, size))
        image = Image.open(root / 'labels' / 'val' / name.with_suffix('.png'))
        labels.append(np.asarray(image).astype(int) - BACKGROUND - 1)
    columns = {"masks of COCO's JSON": masks, 'label images': labels}
    draw_label_maps(pictures, columns, list(CLASSES), root / 'preview.png')


@one_line_errors()
def main() -> None:
    """Write the dataset and its preview."""
    args = parse_args()
    counts = dict(unlabelled=args.unlabelled, train=args.train, val=args.val)
    require('pycocotools')
    write_dataset(args.root, counts, args.size, seed=args.seed)
    with redirect_stdout(None):  # pycocotools prints every step
        draw_preview(args.root)
    print(f'{args.root}: {", ".join(f"{n} {split}" for split, n in counts.items())}')


if __name__ == '__main__':
    main()
