"""Measure the time and peak memory of a config's training step.

Runs forward and backward on random images and labels, without the optimizer. Works
for pretraining models, classifiers, detectors and segmentors. Needs no dataset.
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmmixmim.benchmarking import (
    PRECISIONS,
    image_size,
    machine,
    markdown_table,
    peak_memory,
    random_batch,
    save_report,
    seconds_of,
)
from mmmixmim.runtime import add_cfg_options, load_config, one_line_errors, positive_int


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--batch-size',
        type=positive_int,
        help="images (the config's batch size per GPU)",
    )
    parser.add_argument(
        '--shape',
        nargs=2,
        type=positive_int,
        metavar=('HEIGHT', 'WIDTH'),
        help="pixels (the backbone's img_size)",
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='fp32', help='precision (fp32)'
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device (cuda if available)',
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=5, help='timed rounds (5)'
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/training_cost.json'),
        help='JSON file; a table (.md) is saved next to it',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def training_step(model: nn.Module, batch: dict, precision: str) -> Callable[[], None]:
    """Make a function that accumulates the gradients of a batch."""
    device = model.data_preprocessor.device.type
    low = precision != 'fp32'

    def step() -> None:
        data = model.data_preprocessor(batch, training=True)
        with torch.autocast(device, PRECISIONS[precision]) if low else nullcontext():
            losses = model(**data, mode='loss')
        model.parse_losses(losses)[0].backward()

    return step


@one_line_errors()
def main() -> None:
    """Build the model, measure, print and save."""
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmmixmim'))
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(args.device).train()
    number = args.batch_size or cfg.train_dataloader.batch_size
    size = image_size(model, args.shape)
    batch = random_batch(cfg, model, number, size)
    step = training_step(model, batch, args.precision)
    peak = peak_memory(step, args.device)
    seconds = seconds_of(step, args.rounds, args.device)

    parameters = sum(each.numel() for each in model.parameters())
    cells = [Path(args.config).name, str(number), f'{size[0]}x{size[1]}']
    cells += [args.precision, f'{parameters / 1e6:.1f}']
    cells += [f'{statistics.median(seconds):.3f}', f'{peak / 2**30:.2f}']
    head = ['config', 'images', 'pixels', 'precision', 'parameters, M', 'seconds']
    table = markdown_table([*head, 'peak GiB'], [cells])
    record = dict(machine=machine(args.device), config=str(args.config), images=number)
    record |= dict(size=size, precision=args.precision, parameters=parameters)
    save_report(args.output, record | dict(seconds=seconds, peak_bytes=peak), table)
    print(f'{table}\n\nMemory excludes weights and gradients. Saved as {args.output}')


if __name__ == '__main__':
    main()
