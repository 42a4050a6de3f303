"""Draw images, their mixtures, and the reconstructions of a pretrained model."""

import argparse
from pathlib import Path

from mmmixmim.runtime import (
    add_cfg_options,
    load_config,
    one_line_errors,
    positive_int,
    random_seed,
)
from mmmixmim.visualization import check_picture, draw_training_images


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='pretraining checkpoint of any format')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('reconstruction.png'),
        help='picture to write (reconstruction.png)',
    )
    parser.add_argument(
        '--num',
        type=positive_int,
        default=8,
        help='number of images (8), rounded up to whole mixtures',
    )
    parser.add_argument(
        '--seed',
        type=random_seed,
        default=0,
        help='seed of images, crops and masks (0)',
    )
    parser.add_argument(
        '--bands',
        nargs='+',
        type=int,
        help='one or three channels to show, from 0 (RGB, or principal components)',
    )
    parser.add_argument(
        '--details',
        action='store_true',
        help='also draw visible cells, predictions pasted into them, and errors',
    )
    add_cfg_options(parser)
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Draw images of the config's training dataset."""
    args = parse_args()
    check_picture(args.out)
    cfg = load_config(args.config, args.cfg_options)
    draw_training_images(
        cfg,
        args.checkpoint,
        args.out,
        args.num,
        args.seed,
        details=args.details,
        bands=args.bands,
    )
    print(args.out)


if __name__ == '__main__':
    main()
