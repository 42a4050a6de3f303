"""Predict memory, time and cost of a training run on GPUs that are not at hand."""

import argparse
from pathlib import Path

from mmmixmim.benchmarking import (
    CARDS,
    PRECISIONS,
    batch_in_name,
    find_card,
    measured_memory,
    plan,
    plan_report,
    step_cost,
)
from mmmixmim.ops.recompute import MODES
from mmmixmim.runtime import add_cfg_options, load_config, one_line_errors, positive_int


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--gpu',
        default='h100',
        help=f'one of {", ".join(CARDS)}, or peak in TFLOP/s, bandwidth in TB/s and '
        'memory in GB of any other: 312,2.0,80 (h100)',
    )
    parser.add_argument(
        '--gpus',
        nargs='+',
        type=positive_int,
        default=[8],
        help='numbers of GPUs to compare (8)',
    )
    parser.add_argument(
        '--total-batch',
        type=positive_int,
        help="images per step of all GPUs (GPUs times images in the config's name)",
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive_int,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels (the backbone's img_size)",
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, help='precision (as configured)'
    )
    parser.add_argument(
        '--recompute',
        nargs='+',
        choices=MODES,
        default=MODES,
        help='what the backward pass may recompute (all are compared)',
    )
    parser.add_argument(
        '--images',
        type=positive_int,
        help='training images (known for public datasets)',
    )
    parser.add_argument(
        '--images-per-core',
        type=float,
        default=700.0,
        help='images per second that a core loads (700, see docs/performance.md)',
    )
    parser.add_argument(
        '--network',
        type=float,
        default=50.0,
        help='GB/s per GPU between machines of 8 (50)',
    )
    parser.add_argument(
        '--check',
        type=positive_int,
        metavar='IMAGES',
        help='also run a real step of so many images on this CPU, and compare its '
        'memory with the prediction',
    )
    add_cfg_options(parser)
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Plan and print."""
    args = parse_args()
    card = find_card(args.gpu)
    cfg = load_config(args)
    size = tuple(args.shape) if args.shape else None
    found = plan(
        cfg,
        card,
        args.gpus,
        args.total_batch or batch_in_name(args.config),
        size,
        args.precision,
        args.recompute,
        args.images,
        args.images_per_core,
        args.network * 1e9,
    )
    print(plan_report(found, card, Path(args.config).name))
    if args.check:
        cost = step_cost(cfg, args.check, size, gpu=False, accumulate=True)
        predicted = cost.memory['activations']
        measured = measured_memory(cfg, args.check, size)
        print(
            f'\nCheck on this CPU, {args.check} images, float32: activations predicted '
            f'{predicted / 2**30:.2f} GiB, measured {measured / 2**30:.2f} GiB, error '
            f'{predicted / measured - 1:+.1%}.'
        )


if __name__ == '__main__':
    main()
