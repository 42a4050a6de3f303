"""Predict a training step on a GPU from its kernels, for any config.

Prints the operators that take most of the time, and totals of variants to compare: what
the backward pass recomputes, and whether AdamW is fused; or, with --compiled, of the
step that torch.compile makes of a pretraining model. Needs no GPU.
"""

import argparse
from pathlib import Path

from mmmixmim.benchmarking import (
    CARDS,
    PRECISIONS,
    Card,
    KernelCounter,
    Kernels,
    find_card,
    markdown_table,
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
        default='h200',
        help=f'one of {", ".join(CARDS)}, or peak in TFLOP/s, bandwidth in TB/s and '
        'memory in GiB of any other: 312,2.0,80 (h200)',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=128, help='images (128)'
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive_int,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels (the backbone's img_size)",
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='bf16', help='precision (bf16)'
    )
    parser.add_argument(
        '--recompute', nargs='+', choices=MODES, default=['none'], help='modes (none)'
    )
    parser.add_argument(
        '--unfused', action='store_true', help='AdamW without its fused kernel'
    )
    parser.add_argument(
        '--compiled',
        action='store_true',
        help='the compiled step, by the bytes that Inductor counts for the graph that '
        'it lowers (takes a minute)',
    )
    parser.add_argument(
        '--rows', type=positive_int, default=15, help='operators to print (15)'
    )
    add_cfg_options(parser)
    return parser.parse_args()


@one_line_errors()
def main() -> None:
    """Count and print."""
    args = parse_args()
    card = find_card(args.gpu)
    cfg = load_config(args.config, args.cfg_options)
    title = f'{Path(args.config).name}, {args.batch_size} images, {card.name}'
    print(f'{title}, predicted')
    step = (cfg, args.batch_size, args.shape, args.precision)
    if args.compiled:
        # It imports parts of Inductor that are private to PyTorch.
        from mmmixmim.benchmarking.compiled import compiled_kernels

        kernels = compiled_kernels(*step)
        print("\ncompiled, by Inductor's bytes of the graph lowered for a GPU\n")
        _print(kernels, card, args.rows)
        return
    for mode in args.recompute:
        cost = step_cost(*step, mode, fused=not args.unfused)
        print(f"\nrecompute='{mode}', peak {cost.peak / 2**30:.2f} GiB\n")
        _print(cost.kernels, card, args.rows)


def _print(kernels: dict[str, KernelCounter], card: Card, number: int) -> None:
    """Print the operators that take most of the time, and the sum of all."""
    parts = [
        (phase, name, row, counter.seconds(card, name))
        for phase, counter in kernels.items()
        for name, row in counter.rows().items()
    ]
    parts.sort(key=lambda part: -part[-1])
    total = sum((part[2] for part in parts), Kernels())
    rows = [_row(*part) for part in parts[:number]]
    rows.append(_row('all', '', total, sum(part[-1] for part in parts)))
    head = ['phase', 'operator', 'kernels', 'GB', 'TFLOP', 'ms']
    print(markdown_table(head, rows))


def _row(phase: str, name: str, kernels: Kernels, seconds: float) -> list[str]:
    return [
        *(phase, name, str(kernels.number), f'{kernels.size / 1e9:.1f}'),
        *(f'{kernels.flops / 1e12:.2f}', f'{seconds * 1e3:.1f}'),
    ]


if __name__ == '__main__':
    main()
