"""Compare the speed of image loading for pretraining with mmpretrain's pipeline.

Both read the same files on one core, in turns, and make augmented crops of 224 pixels;
so does our pipeline from WebDataset shards of these files, if webdataset is installed.
Then MMEngine's Runner pretrains with each pipeline, for several numbers of dataloader
workers, and the share of time it spends waiting for images is measured.
"""

import argparse
import importlib.util
import statistics
import tempfile
from itertools import islice
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
from mmmixmim.datasets import ShardStream, write_shards
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
        help='folder of images (default: 64 generated JPEGs of 500x375 pixels)',
    )
    parser.add_argument(
        '--images', type=positive_int, default=64, help='number of images (64)'
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=9, help='timed rounds (9)'
    )
    parser.add_argument(
        '--workers',
        nargs='*',
        type=int,
        default=[0, 1, 2],
        help='numbers of dataloader workers (0 1 2); empty to skip training',
    )
    parser.add_argument(
        '--arch',
        choices=['tiny', *MixMIMTransformer.ARCHS],
        default='tiny',
        help='encoder size (tiny, which trains fast and so waits the most)',
    )
    parser.add_argument(
        '--batch-size', type=positive_int, default=32, help='images per step (32)'
    )
    parser.add_argument(
        '--iterations', type=positive_int, default=20, help='timed steps (20)'
    )
    parser.add_argument(
        '--output',
        type=Path,
        default=Path('work_dirs/benchmarks/compare_loading.json'),
        help='JSON file; tables (.md) are saved next to it',
    )
    return parser.parse_args()


def shards_of(paths: list[str], folder: Path) -> ShardStream | None:
    """Write files to shards in an empty folder; None without webdataset."""
    if importlib.util.find_spec('webdataset') is None:
        return None
    links, shards = folder / 'links', folder / 'shards'
    links.mkdir()
    for number, path in enumerate(map(Path, paths)):
        (links / f'{number:08}{path.suffix}').symlink_to(path.absolute())
    write_shards(links, shards)
    return ShardStream(str(shards), PIPELINES['ours'])


def compare_pipelines(
    paths: list[str], rounds: int, shards: ShardStream | None = None
) -> dict:
    """Time the pipelines in turns, on one core.

    Args:
        paths: The images.
        rounds: Number of timed rounds.
        shards: The same images. Defaults to None: leave out shards.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pipelines = make_pipelines()

    def reader(name: str):
        return lambda: [pipelines[name](dict(img_path=path)) for path in paths]

    readers = {name: reader(name) for name in pipelines}
    if shards is not None:
        readers['shards'] = lambda: list(islice(shards, len(paths)))
    seconds = interleave(readers, rounds)
    torch.set_num_threads(threads)
    ratios = {}
    if shards is not None:
        ratio = pairwise_ratio(seconds['ours'], seconds['shards'])
        ratios['shards_over_folder'] = ratio
    return ratios | dict(
        images_per_second={
            name: len(paths) / statistics.median(values)
            for name, values in seconds.items()
        },
        speed_over_mmpretrain=pairwise_ratio(seconds['mmpretrain'], seconds['ours']),
    )


def compare_training(folder: Path, args: argparse.Namespace) -> list[dict]:
    """Measure how long the trainer waits for images, with both pipelines."""
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
    """Format both results as Markdown tables."""
    speeds = record['pipelines']['images_per_second']
    ratio = with_spread(record['pipelines']['speed_over_mmpretrain'])
    text = markdown_table(
        ['ours images/s', 'mmpretrain images/s', 'ratio'],
        [[f'{speeds["ours"]:.0f}', f'{speeds["mmpretrain"]:.0f}', ratio]],
    )
    if 'shards' in speeds:
        ratio = with_spread(record['pipelines']['shards_over_folder'])
        shards = markdown_table(
            ['shards images/s', 'folder images/s', 'ratio'],
            [[f'{speeds["shards"]:.0f}', f'{speeds["ours"]:.0f}', ratio]],
        )
        text = f'{text}\n\n{shards}'
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


@one_line_errors()
def main() -> None:
    """Measure, print and save."""
    args = parse_args()
    init_default_scope('mmmixmim')
    with (
        tempfile.TemporaryDirectory() as generated,
        tempfile.TemporaryDirectory() as packed,
    ):
        folder = args.data_root or Path(generated)
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
            pipelines=compare_pipelines(
                paths, args.rounds, shards_of(paths, Path(packed))
            ),
            training=compare_training(folder, args),
        )
    text = tables(record)
    save_report(args.output, record, text)
    print(f'\n{text}\n\nSaved as {args.output}')


if __name__ == '__main__':
    main()
