"""Measure how time and peak memory grow with batch, image and model size.

Every point runs in a separate process. Slopes are taken between neighbouring points
on logarithmic axes: 1 means proportional to the batch size, the number of pixels or
the number of parameters.
"""

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

from mmmixmim.benchmarking import (
    PRECISIONS,
    Setting,
    machine,
    make_workloads,
    markdown_table,
    peak_memory,
    save_report,
    seconds_of,
)
from mmmixmim.runtime import one_line_errors, positive_int

HEAD = ['growth', 'point', 'size', 'seconds', 'slope', 'peak GiB', 'slope']


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--batch-size',
        nargs='+',
        type=positive_int,
        default=[1, 2, 4, 8, 16],
        help='batch sizes: pretraining, base, 224 pixels (1 2 4 8 16)',
    )
    parser.add_argument(
        '--img-size',
        nargs='+',
        type=positive_int,
        default=[128, 224, 320, 512],
        help='image sizes: pretraining, base, 2 images (128 224 320 512)',
    )
    parser.add_argument(
        '--inference-size',
        nargs='+',
        type=positive_int,
        default=[256, 512, 1024],
        help='image sizes: inference, base, windows of 16, 1 image (256 512 1024)',
    )
    parser.add_argument(
        '--arch',
        nargs='+',
        choices=['base', 'large', 'huge'],
        default=['base', 'large', 'huge'],
        help='encoder sizes: pretraining, 224 pixels, 1 image (base large huge)',
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=5, help='timed rounds (5)'
    )
    parser.add_argument('--device', default='cpu', help='device (cpu)')
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='fp32', help='precision (fp32)'
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/growth.json'),
        help='JSON file; a table (.md) and a plot (.png) are saved next to it',
    )
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    return parser.parse_args()


def series(args: argparse.Namespace) -> dict[str, list[tuple[str, Setting]]]:
    """List the points of each curve, with their labels."""
    common = dict(device=args.device, precision=args.precision)
    return dict(
        batch=[
            (str(batch), Setting('pretrain', 'base', batch, **common))
            for batch in args.batch_size
        ],
        image=[
            (f'{size} px', Setting('pretrain', 'base', 2, size, **common))
            for size in args.img_size
        ],
        inference=[
            (f'{size} px', Setting('inference', 'base', 1, size, window=16, **common))
            for size in args.inference_size
        ],
        model=[(arch, Setting('pretrain', arch, 1, **common)) for arch in args.arch],
    )


def measure(setting: Setting, rounds: int) -> dict:
    """Measure time and memory of one point."""
    workload = make_workloads(setting, ('ours',))['ours']
    peak = peak_memory(workload.accumulate, setting.device)
    seconds = seconds_of(workload, rounds, setting.device)
    return dict(
        seconds=statistics.median(seconds),
        peak_bytes=peak,
        parameters=sum(each.numel() for each in workload.model.parameters()),
    )


def in_a_process(setting: Setting, rounds: int) -> dict:
    """Run :func:`measure` in a new process."""
    task = json.dumps([dataclasses.asdict(setting), rounds])
    process = subprocess.run(
        [sys.executable, __file__, '--measure', task],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:  # the process has printed its error
        raise SystemExit(process.returncode)
    return json.loads(process.stdout.splitlines()[-1])


def size_of(name: str, setting: Setting, figures: dict) -> int:
    """Return the value on the horizontal axis."""
    sizes = dict(batch=setting.batch_size, model=figures['parameters'])
    return sizes.get(name, setting.img_size**2)


def slope(points: list[dict], i: int, key: str) -> str:
    """Slope from the previous point, on logarithmic axes."""
    if i == 0:
        return '-'
    before, now = points[i - 1], points[i]
    rise = math.log(now[key] / before[key])
    return f'{rise / math.log(now["size"] / before["size"]):.2f}'


def rows(curves: dict[str, list[dict]]) -> list[list[str]]:
    """Format all points as rows of the table."""
    return [
        [
            name,
            point['label'],
            f'{point["size"]:,}',
            f'{point["seconds"]:.3f}',
            slope(points, i, 'seconds'),
            f'{point["peak_bytes"] / 2**30:.2f}',
            slope(points, i, 'peak_bytes'),
        ]
        for name, points in curves.items()
        for i, point in enumerate(points)
    ]


def draw(curves: dict[str, list[dict]], path: Path) -> None:
    """Plot each curve with a line of slope 1 through its middle point.

    Curves of a single point are left out.
    """
    from matplotlib.figure import Figure

    curves = {name: points for name, points in curves.items() if len(points) > 1}
    if not curves:
        return
    figure = Figure((3.2 * len(curves), 5.6))
    axes = figure.subplots(2, len(curves), squeeze=False)
    kinds = (('seconds', 1, 'seconds'), ('peak_bytes', 2**30, 'peak GiB'))
    for column, (name, points) in zip(axes.T, curves.items(), strict=True):
        sizes = [point['size'] for point in points]
        middle = len(points) // 2
        for axis, (key, unit, label) in zip(column, kinds, strict=True):
            values = [point[key] / unit for point in points]
            axis.loglog(sizes, values, 'o-', label='measured')
            line = [values[middle] * size / sizes[middle] for size in sizes]
            axis.loglog(sizes, line, ':', color='grey', label='slope 1')
            axis.set_xticks(sizes, [point['label'] for point in points], minor=False)
            axis.set_xticks([], minor=True)
            axis.set_ylabel(label)
        column[0].set_title(name)
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


@one_line_errors()
def main() -> None:
    """Measure, print, plot and save."""
    args = parse_args()
    if args.measure:
        setting, rounds = json.loads(args.measure)
        print(json.dumps(measure(Setting(**setting), rounds)))
        return
    curves = {}
    for name, points in series(args).items():
        curves[name] = []
        for label, setting in points:
            figures = in_a_process(setting, args.rounds)
            size = size_of(name, setting, figures)
            curves[name].append(dict(label=label, size=size, **figures))
            print('  '.join(rows({name: curves[name]})[-1]), flush=True)
    table = markdown_table(HEAD, rows(curves))
    save_report(args.output, dict(machine=machine(args.device), curves=curves), table)
    draw(curves, args.output.with_suffix('.png'))
    print(f'\n{table}\n\nSaved as {args.output}')


if __name__ == '__main__':
    main()
