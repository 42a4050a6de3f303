"""Compare our loading of images for pretraining with mmpretrain's pipeline.

Both read the same files, one after the other in turns on one core, and make
augmented crops of 224 pixels of them. Then MMEngine's Runner pretrains from the
files, and the share of a step that it waits for images is measured for each number
of loading processes.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from mmengine.registry import init_default_scope

from mmmixmim.benchmarking import (
    PIPELINES,
    interleave,
    machine,
    make_pipelines,
    markdown_table,
    pairwise_ratio,
    save_report,
    waiting_share,
    with_spread,
    write_photos,
)
from mmmixmim.models import MixMIMTransformer
from mmmixmim.registry import DATASETS
from mmmixmim.runtime import one_line_errors, positive_int

TINY = dict(embed_dims=32, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--data-root',
        type=Path,
        help='folder of images (default: 64 drawn JPEGs of 500x375 pixels)',
    )
    parser.add_argument(
        '--images', type=positive_int, default=64, help='how many are read (64)'
    )
    parser.add_argument('--rounds', type=positive_int, default=9, help='9')
    parser.add_argument(
        '--workers',
        nargs='*',
        type=int,
        default=[0, 1, 2],
        help='numbers of loading processes (0 1 2); none to leave training out',
    )
    parser.add_argument(
        '--arch',
        choices=['tiny', *MixMIMTransformer.ARCHS],
        default='tiny',
        help='the model that is trained (tiny, which soon waits)',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=32, help='images of a step (32)'
    )
    parser.add_argument(
        '--iterations', type=positive_int, default=20, help='steps that are timed (20)'
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/compare_loading.json'),
        help='JSON file; tables are written beside it, with the ending .md',
    )
    return parser.parse_args()


def compare_pipelines(paths: list[str], rounds: int) -> dict:
    """Time both pipelines on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pipelines = make_pipelines()

    def reader(name: str):
        return lambda: [pipelines[name](dict(img_path=path)) for path in paths]

    seconds = interleave({name: reader(name) for name in pipelines}, rounds)
    torch.set_num_threads(threads)
    return dict(
        images_per_second={
            name: len(paths) / statistics.median(values)
            for name, values in seconds.items()
        },
        speed_over_mmpretrain=pairwise_ratio(seconds['mmpretrain'], seconds['ours']),
    )


def compare_training(folder: Path, args: argparse.Namespace) -> list[dict]:
    """Measure how long the trainer waits, with both pipelines."""
    tiny = args.arch == 'tiny'
    backbone = dict(type='MixMIMTransformer', arch=TINY if tiny else args.arch)
    model = dict(
        type='MixMIM',
        backbone=backbone,
        neck=dict(type='MixMIMPretrainDecoder', decoder_depth=1 if tiny else 8),
        data_preprocessor=dict(
            type='SelfSupDataPreprocessor', mean=[127.5], std=[57.0], to_rgb=True
        ),
    )
    results = []
    with tempfile.TemporaryDirectory() as work_dir:
        for workers in args.workers:
            for name, pipeline in PIPELINES.items():
                figures = waiting_share(
                    folder,
                    Path(work_dir, f'{name}_{workers}'),
                    pipeline,
                    model,
                    workers,
                    args.batch_size,
                    args.iterations,
                )
                results.append(dict(pipeline=name, workers=workers, **figures))
    return results


def tables(record: dict) -> str:
    """Write both results as Markdown tables."""
    speeds = record['pipelines']['images_per_second']
    ratio = with_spread(record['pipelines']['speed_over_mmpretrain'])
    text = markdown_table(
        ['ours images/s', 'mmpretrain images/s', 'ratio'],
        [[f'{speeds["ours"]:.0f}', f'{speeds["mmpretrain"]:.0f}', ratio]],
    )
    if not record['training']:
        return text
    rows = [
        [
            each['pipeline'],
            str(each['workers']),
            f'{each["seconds"]:.3f}',
            f'{each["waiting"]:.4f}',
            f'{each["share"]:.1%}',
        ]
        for each in record['training']
    ]
    head = ['pipeline', 'workers', 'step s', 'waiting s', 'share']
    return f'{text}\n\n{markdown_table(head, rows)}'


def main() -> None:
    """Measure, print and save."""
    args = parse_args()
    init_default_scope('mmmixmim')
    with tempfile.TemporaryDirectory() as drawn, one_line_errors():
        folder = args.data_root or Path(drawn)
        if not args.data_root:
            write_photos(folder, args.images)
        dataset = DATASETS.build(dict(type='ImageFolder', data_root=str(folder)))
        number = min(args.images, len(dataset))
        paths = [dataset.get_data_info(i)['img_path'] for i in range(number)]
        record = dict(
            machine=machine(),
            images=len(paths),
            arch=args.arch,
            batch_size=args.batch_size,
            pipelines=compare_pipelines(paths, args.rounds),
            training=compare_training(folder, args),
        )
    text = tables(record)
    save_report(args.output, record, text)
    print(f'\n{text}\n\nsaved as {args.output}')


if __name__ == '__main__':
    main()
