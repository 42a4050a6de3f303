"""Time the GEMMs of linear layers in PyTorch's BLAS and in oneDNN, and by our rule.

"mm" is the BLAS, MKL on x86. oneDNN gets the matrices as they are, copied so that rows
are contiguous, or for the transposed product. Prints seconds per training step for each
product, and with the choice that `mmmixmim/ops/` makes on this CPU, and the shapes
where another choice was clearly faster. Shows whether the rule holds on a machine.
"""

import argparse
from collections import defaultdict
from statistics import median

import torch

from mmmixmim.benchmarking import (
    Setting,
    interleave,
    linear_shapes,
    machine,
    make_workloads,
    markdown_table,
    ways_to_multiply,
)
from mmmixmim.ops import linear_layer
from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.validation import UserError

CLEARLY = 1.15  # times as fast; less is within the noise of shared machines


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--arch', choices=['base', 'large', 'huge'], default='base', help='size (base)'
    )
    parser.add_argument('--batch-size', type=positive_int, default=4, help='images (4)')
    parser.add_argument(
        '--rounds', type=positive_int, default=9, help='timed rounds (9)'
    )
    return parser.parse_args()


@torch.no_grad()
def time_products(rows: int, inner: int, outer: int, rounds: int) -> dict[str, dict]:
    """Time the three products of a layer: medians of seconds by choice.

    Args:
        rows: Number of tokens.
        inner: Input channels.
        outer: Output channels.
        rounds: Timed rounds.
    """
    x, weight, grad = (
        torch.randn(size) for size in ((rows, inner), (outer, inner), (rows, outer))
    )
    products = {
        'outputs': (x, weight.t(), lambda: linear_layer._forward(x, weight)),
        'gradients of inputs': (
            *(grad, weight),
            lambda: linear_layer._grad_input(grad, weight),
        ),
        'gradients of weights': (
            *(grad.t(), x),
            lambda: linear_layer._grad_weight(grad, x),
        ),
    }
    found = {}
    for name, (a, b, rule) in products.items():
        seconds = interleave(ways_to_multiply(a, b) | dict(rule=rule), rounds)
        found[name] = {each: median(times) for each, times in seconds.items()}
    return found


@one_line_errors()
def main() -> None:
    """Time and print."""
    args = parse_args()
    if linear_layer.ONEDNN_LINEAR is None:
        raise UserError('This PyTorch has no oneDNN, so there is nothing to compare.')
    model = make_workloads(Setting('pretrain', args.arch, args.batch_size), ('ours',))
    shapes = linear_shapes(model['ours'].model, model['ours'].forward)
    sums, slower = defaultdict(lambda: defaultdict(float)), []
    for (rows, inner, outer), times in shapes.items():
        found = time_products(rows, inner, outer, args.rounds)
        for product, seconds in found.items():
            best = min(each for way, each in seconds.items() if way != 'rule')
            for name, each in (seconds | dict(best=best)).items():
                sums[product][name] += times * each
            if seconds['rule'] > CLEARLY * best:
                slower.append(
                    f'{product} of {rows} tokens, {inner} to {outer} channels: '
                    f'{seconds["rule"] / best:.2f} times the best'
                )
    columns = list(sums['outputs'])
    table = [
        [product, *(f'{row[name]:.3f}' for name in columns)]
        for product, row in sums.items()
    ]
    totals = [sum(row[name] for row in sums.values()) for name in columns]
    table.append(['all', *(f'{each:.3f}' for each in totals)])
    print(f'{machine()["device"]}, {args.arch}, {args.batch_size} images; s per step\n')
    print(markdown_table(['product', *columns], table))
    print('\nClearly slower than the best:', *(slower or ['none']), sep='\n  ')


if __name__ == '__main__':
    main()
