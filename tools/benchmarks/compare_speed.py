"""Compare the speed and peak memory of our models and mmpretrain's port.

Both get the same weights, images and mask, and their results must agree before
anything is timed. They run in turns in one process, together with the bare GEMMs of
our model's linear layers (the floor). Times are medians over the rounds; ratios are
computed for each round and reported as median and quartiles. Memory is measured in a
separate process for each model: that of the tensors, and on a CPU also what the process
holds, which is more and differs between runs.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

from mmmixmim.benchmarking import (
    IMPLEMENTATIONS,
    PRECISIONS,
    TASKS,
    Setting,
    gemm_floor,
    give_tensors_pages,
    interleave,
    linear_shapes,
    machine,
    make_workloads,
    markdown_table,
    pairwise_ratio,
    peak_memory,
    save_report,
    with_spread,
)
from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.validation import UserError

BATCH_SIZES = dict(pretrain=[4], finetune=[4], inference=[1, 32], dense=[1])
IMG_SIZES = dict(pretrain=[224], finetune=[224], inference=[224], dense=[512, 1024])
# Largest difference that rounding explains, relative to the largest value.
TOLERANCES = dict(fp32=1e-4, bf16=5e-2, fp16=1e-2)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--task', nargs='+', choices=TASKS, default=TASKS, help='workloads (all)'
    )
    parser.add_argument(
        '--arch',
        nargs='+',
        choices=['base', 'large', 'huge'],
        default=['base', 'large'],
        help='encoder sizes (base large)',
    )
    parser.add_argument(
        '--batch-size',
        nargs='+',
        type=positive_int,
        help='batch sizes (4; 1 32 for inference; 1 for dense)',
    )
    parser.add_argument(
        '--img-size',
        nargs='+',
        type=positive_int,
        help='image sizes in pixels (224; 512 1024 for dense)',
    )
    parser.add_argument(
        '--precision',
        nargs='+',
        choices=PRECISIONS,
        default=['fp32'],
        help='precision (fp32)',
    )
    parser.add_argument(
        '--device',
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='device (cuda if available)',
    )
    parser.add_argument('--compile', action='store_true', help='use torch.compile')
    parser.add_argument(
        '--rounds', type=positive_int, default=7, help='timed rounds (7)'
    )
    parser.add_argument('--memory', action='store_true', help='also measure memory')
    parser.add_argument('--no-speed', action='store_true', help='measure memory only')
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/compare_speed.json'),
        help='JSON file; a table (.md) is saved next to it',
    )
    parser.add_argument('--peak-of', nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def settings(args: argparse.Namespace) -> list[Setting]:
    """Build all combinations of the command-line options."""
    return [
        Setting(task, arch, batch, size, args.device, precision, args.compile)
        for task in args.task
        for arch in args.arch
        for size in args.img_size or IMG_SIZES[task]
        for batch in args.batch_size or BATCH_SIZES[task]
        for precision in args.precision
    ]


def check_agreement(workloads: dict, tolerance: float) -> float:
    """Return the relative difference of the results; raise if it is too large."""
    ours, theirs = (workloads[name]().float() for name in IMPLEMENTATIONS)
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if not error <= tolerance:
        raise UserError(
            f'The results differ by {error:.1e} (relative), more than the '
            f'{tolerance:.0e} that rounding explains. Nothing was timed.'
        )
    return error


def measure_speed(setting: Setting, rounds: int) -> dict:
    """Time both models and the floor in turns."""
    workloads = make_workloads(setting)
    error = check_agreement(workloads, TOLERANCES[setting.precision])
    ours = workloads['ours']
    shapes = linear_shapes(ours.model, ours.forward)
    floor = gemm_floor(shapes, setting.backward, setting.device, setting.dtype)
    seconds = interleave(dict(**workloads, floor=floor), rounds, setting.device)
    return dict(
        difference=error,
        seconds=seconds,
        speed_over_mmpretrain=pairwise_ratio(seconds['mmpretrain'], seconds['ours']),
        time_over_floor=pairwise_ratio(seconds['ours'], seconds['floor']),
        mmpretrain_over_floor=pairwise_ratio(seconds['mmpretrain'], seconds['floor']),
    )


def measure_memory(setting: Setting) -> dict:
    """Measure the peak memory of each model in separate processes."""
    kinds = ['tensors', 'process'] if setting.device == 'cpu' else ['tensors']
    result = {}
    for kind in kinds:
        peaks = {name: _peak(setting, name, kind) for name in IMPLEMENTATIONS}
        ratio = peaks['ours'] / peaks['mmpretrain']
        result[f'memory_of_{kind}'] = dict(bytes=peaks, ratio=ratio)
    return result


def _peak(setting: Setting, name: str, kind: str) -> int:
    task = [name, kind, json.dumps(dataclasses.asdict(setting))]
    process = subprocess.run(
        [sys.executable, __file__, '--peak-of', *task],
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:  # the process has printed its error
        raise SystemExit(process.returncode)
    return int(process.stdout.split()[-1])


def print_peak(name: str, kind: str, setting: str) -> None:
    """Print the peak memory of one model in bytes."""
    if kind == 'tensors':
        give_tensors_pages()
    setting = Setting(**json.loads(setting))
    workload = make_workloads(setting, (name,))[name]
    print(peak_memory(workload.accumulate, setting.device))


def row(result: dict) -> list[str]:
    """Format one result as a row of the table."""
    cells = [str(result[key]) for key in ('task', 'arch', 'img_size', 'batch_size')]
    cells.append(result['precision'] + (' compiled' if result['compiled'] else ''))
    if 'seconds' in result:
        cells += [
            f'{statistics.median(result["seconds"][name]):.3f}'
            for name in (*IMPLEMENTATIONS, 'floor')
        ]
        cells += [with_spread(result['speed_over_mmpretrain'])]
        cells += [with_spread(result['time_over_floor'])]
    else:
        cells += ['-'] * 5
    for kind in ('memory_of_tensors', 'memory_of_process'):
        if memory := result.get(kind):
            peaks = (f'{memory["bytes"][name] / 2**30:.2f}' for name in IMPLEMENTATIONS)
            cells += [' of '.join(peaks), f'{memory["ratio"]:.3f}']
        else:
            cells += ['-'] * 2
    return cells


HEAD = [
    *('task', 'arch', 'pixels', 'batch', 'precision', 'ours s', 'mmpretrain s'),
    *('floor s', 'speed over mmpretrain', 'time over floor'),
    *("tensors: GiB, of mmpretrain's", 'tensors: ratio'),
    *("process: GiB, of mmpretrain's", 'process: ratio'),
]


@one_line_errors()
def main() -> None:
    """Measure all settings, then print and save the results."""
    args = parse_args()
    if args.peak_of:
        print_peak(*args.peak_of)
        return
    results = []
    for setting in settings(args):
        result = dataclasses.asdict(setting)
        if not args.no_speed:
            result |= measure_speed(setting, args.rounds)
        if args.memory or args.no_speed:
            result |= measure_memory(setting)
        results.append(result)
        print('  '.join(row(result)), flush=True)
        record = dict(machine=machine(args.device), results=results)
        table = markdown_table(HEAD, [row(each) for each in results])
        save_report(args.output, record, table)
    print(f'\n{table}\n\nSaved as {args.output}')


if __name__ == '__main__':
    main()
