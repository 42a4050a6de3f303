"""Measure GPU utilisation in pretraining, for our models and mmpretrain's port.

For each model, eager and compiled, at each batch size: images per second of a training
step with AdamW, model FLOPs utilisation (MFU), peak memory, the time of the first step,
which compiles, and the attention kernels used. MFU is three times the FLOPs of our
forward pass, without any recomputation, relative to the measured speed of one large
GEMM of the same dtype. Every measurement runs in a separate process and is saved at
once.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmmixmim.benchmarking import (
    IMPLEMENTATIONS,
    PRECISIONS,
    Setting,
    attention_kernels,
    largest_batch,
    machine,
    make_workloads,
    markdown_table,
    matrix_rate,
    peak_memory,
    save_report,
    seconds_of,
    training_step,
)
from mmmixmim.ops.recompute import MODES
from mmmixmim.runtime import is_out_of_memory, one_line_errors, positive_int
from mmmixmim.validation import UserError

HEAD = [
    *('arch', 'model', 'mode', 'batch', 'images/s', 'MFU', 'peak GiB'),
    *('first step s', 'attention kernels'),
]


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--arch',
        nargs='+',
        choices=['base', 'large', 'huge'],
        default=['base', 'large', 'huge'],
        help='encoder sizes (base large huge)',
    )
    parser.add_argument(
        '--batch-size',
        nargs='+',
        type=batch_size,
        default=[128],
        help="batch sizes, or 'largest': searches for the largest that fits (128)",
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='bf16', help='precision (bf16)'
    )
    parser.add_argument(
        '--mode',
        nargs='+',
        choices=['eager', 'compiled', 'reduce-overhead'],
        default=['eager', 'compiled'],
        help='execution modes (eager compiled); reduce-overhead compiles with CUDA '
        'graphs, for small batches',
    )
    parser.add_argument(
        '--recompute', choices=MODES, help="recomputation of our models (the device's)"
    )
    parser.add_argument(
        '--low-precision-norms',
        action='store_true',
        help='keep the norms of our models in the low precision',
    )
    parser.add_argument(
        '--steps', type=positive_int, default=10, help='timed steps (10)'
    )
    parser.add_argument(
        '--timeout',
        type=positive_int,
        default=600,
        help='seconds after which a measurement is given up (600)',
    )
    parser.add_argument('--device', default='cuda', help='device (cuda)')
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/gpu_throughput.json'),
        help='JSON file; a table (.md) is saved next to it',
    )
    parser.add_argument('--measure', help=argparse.SUPPRESS)
    return parser.parse_args()


def batch_size(text: str) -> int:
    """Parse a batch size; 0 stands for the largest that fits."""
    return 0 if text == 'largest' else positive_int(text)


def fits(name: str, setting: Setting) -> bool:
    """Whether an eager training step fits into GPU memory."""
    try:
        step = training_step(make_workloads(setting, (name,))[name])
        step()
        step()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        step = None
        torch.cuda.empty_cache()
    return True


def peak_of(step: Callable[[], None], device: str) -> int:
    """Measure peak memory; on a CPU without weights, gradients, optimizer state."""
    if torch.device(device).type != 'cuda':
        return peak_memory(step, device)
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def measure(name: str, setting: Setting, steps: int) -> dict:
    """Measure one model at one batch size; 0 means the largest that fits eagerly."""
    if setting.batch_size == 0:
        # To compile takes minutes for each size.
        eager = dataclasses.replace(setting, compiled=False)
        sizes = dataclasses.replace
        best = largest_batch(lambda b: fits(name, sizes(eager, batch_size=b)))
        if best == 0:
            raise UserError('Not even one image fits into GPU memory.')
        setting = dataclasses.replace(setting, batch_size=best)
    workload = make_workloads(setting, (name,))[name]
    step = training_step(workload)
    start = time.perf_counter()
    step()  # compiles
    if torch.device(setting.device).type == 'cuda':
        torch.cuda.synchronize()
    first = time.perf_counter() - start
    seconds = seconds_of(step, steps, setting.device)
    return dict(
        batch_size=setting.batch_size,
        images_per_second=setting.batch_size / statistics.median(seconds),
        seconds=seconds,
        first_step=first,
        kernels=attention_kernels(step),
        peak_bytes=peak_of(step, setting.device),
    )


def useful_flops(arch: str) -> int:
    """FLOPs of a training step per image: three times the forward pass."""
    setting = Setting('pretrain', arch, batch_size=2)
    workload = make_workloads(setting, ('ours',))['ours']
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        workload.forward()
    return 3 * counter.get_total_flops() // setting.batch_size


def card(setting: Setting) -> dict:
    """Describe the device and measure the speed of a large GEMM."""
    size = 8192 if torch.device(setting.device).type == 'cuda' else 1024
    rate = matrix_rate(setting.device, setting.dtype, size)
    return dict(machine=machine(setting.device), matrix_flops=rate)


def in_a_process(
    name: str, setting: Setting, steps: int, timeout: float | None = None
) -> dict:
    """Run :func:`measure` or :func:`card` in a new process; catch its error."""
    task = json.dumps([name, dataclasses.asdict(setting), steps])
    command = [sys.executable, __file__, '--measure', task]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        error = f'given up after {timeout} s: raise --timeout'
        return dict(batch_size=setting.batch_size, error=error)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or ['no message']
        error = lines[-1].removeprefix('error: ')
        return dict(batch_size=setting.batch_size, error=error)
    return json.loads(process.stdout.splitlines()[-1])


def row(result: dict) -> list[str]:
    """Format one result as a row of the table."""
    cells = [str(result[key]) for key in ('arch', 'model', 'mode')]
    cells.append(str(result['batch_size'] or 'largest'))
    if 'error' in result:
        return [*cells, '-', '-', '-', '-', result['error'].replace('|', '/')]
    return [
        *cells,
        f'{result["images_per_second"]:.1f}',
        f'{result["mfu"]:.1%}',
        f'{result["peak_bytes"] / 2**30:.2f}',
        f'{result["first_step"]:.1f}',
        ', '.join(result['kernels']),
    ]


@one_line_errors()
def main() -> None:
    """Measure, print and save."""
    args = parse_args()
    if args.measure:
        name, setting, steps = json.loads(args.measure)
        setting = Setting(**setting)
        result = card(setting) if name == 'card' else measure(name, setting, steps)
        print(json.dumps(result))
        return
    cuda = torch.device(args.device).type == 'cuda'
    if cuda and not torch.cuda.is_available():
        raise UserError('No CUDA device found. Use --device cpu to try the script.')
    if not cuda and 0 in args.batch_size:
        raise UserError(
            '--batch-size largest needs a GPU, which reports when its memory is full, '
            f'got --device {args.device}: give a number.'
        )
    # This process must not use the GPU: its memory is for the measurements.
    setting = Setting(device=args.device, precision=args.precision)
    record = in_a_process('card', setting, args.steps, args.timeout)
    if 'error' in record:
        raise UserError(record['error'])
    rate = record['matrix_flops']
    results = []
    for arch in args.arch:
        flops = useful_flops(arch)
        for batch in args.batch_size:
            for mode in args.mode:
                for name in IMPLEMENTATIONS:
                    setting = Setting(
                        'pretrain',
                        arch,
                        batch,
                        device=args.device,
                        precision=args.precision,
                        compiled=mode != 'eager',
                        compile_mode=mode if mode == 'reduce-overhead' else None,
                        recompute=args.recompute,
                        low_precision_norms=args.low_precision_norms,
                    )
                    result = dict(arch=arch, model=name, mode=mode)
                    result |= in_a_process(name, setting, args.steps, args.timeout)
                    if 'error' not in result:
                        result['mfu'] = result['images_per_second'] * flops / rate
                    results.append(result)
                    print('  '.join(row(result)), flush=True)
                    table = markdown_table(HEAD, [row(each) for each in results])
                    save_report(args.output, record | dict(results=results), table)
    print(f'\n{table}\n\none large GEMM reaches {rate / 1e12:.2f} TFLOP/s')
    print(f'Saved as {args.output}')


if __name__ == '__main__':
    main()
