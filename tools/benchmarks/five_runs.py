"""Check that reports and logs tell a good run from four bad ones.

Trains a small model on the digits of scikit-learn: as it should be; with a learning
rate that is far too high; on ten images for three times as long; with pixels divided by
far too large a deviation, so that images and target vanish; and with 90 % of each image
hidden. Prints what the log of each run said and when, and writes the report of each run
and one of all of them.
"""

import argparse
import re
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.validation import UserError
from mmmixmim.visualization import write_report

ROOT = Path(__file__).resolve().parents[2]
CONFIG = next((ROOT / 'configs' / 'digits').glob('mixmim_mixmim-tiny_*.py'))
# What differs from the good run.
RUNS = {
    'good': {},
    'high-learning-rate': {'optim_wrapper.optimizer.lr': 1.0},
    'few-images': {'train_dataloader.dataset.samples_per_class': 1},
    'broken-target': {'model.data_preprocessor.std': [1e6]},
    'mask-ratio-0.9': {'model.mask_ratio': 0.9},
}
LONGER = {'few-images': 3}


def build_config(name: str, work_dir: Path, iterations: int) -> Config:
    """Build the config of a run: the digits' recipe, smaller and shorter.

    Args:
        name: Key of :data:`RUNS`.
        work_dir: Folder of all runs.
        iterations: Length of a run.
    """
    cfg = Config.fromfile(CONFIG)
    iterations *= LONGER.get(name, 1)
    warmup, size = iterations // 10, 16
    resize = dict(type='Resize', scale=(size, size), interpolation='bicubic')
    pipeline = [resize, dict(type='PackInputs')]
    # The model sees a grid of 4x4 cells of 4 pixels.
    arch = dict(embed_dims=32, depths=[1, 2], num_heads=[2, 4], _delete_=True)
    cfg.merge_from_dict(
        dict(
            model=dict(
                backbone=dict(arch=arch, img_size=size),
                neck=dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2),
            ),
            train_dataloader=dict(
                batch_size=32,
                num_workers=0,
                persistent_workers=False,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(pipeline=pipeline),
            ),
            val_dataloader=dict(dataset=dict(pipeline=pipeline)),
            val_cfg=dict(max_images=128),
            train_cfg=dict(
                _delete_=True,
                type='IterBasedTrainLoop',
                max_iters=iterations,
                val_interval=iterations // 12,
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=1e-3, end=warmup, by_epoch=False),
                dict(
                    type='CosineAnnealingLR',
                    begin=warmup,
                    end=iterations,
                    by_epoch=False,
                ),
            ],
            custom_hooks=[
                dict(type='OnlineProbeHook', max_images=128),
                dict(type='ReconstructionHook'),
                dict(type='DiagnosisHook', interval=iterations // 12),
                dict(type='ReportHook'),
            ],
            default_hooks=dict(
                checkpoint=dict(interval=iterations, by_epoch=False),
                logger=dict(log_metric_by_epoch=False),
            ),
            log_processor=dict(by_epoch=False),
            work_dir=str(work_dir / name),
        )
    )
    cfg.merge_from_dict(RUNS[name])
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename='config.py')


def verdicts(work_dir: Path) -> list[str]:
    """Read the verdicts in the log of a run, with the iteration before each.

    The folder may have logs of earlier starts, which this run does not continue.
    """
    found, iteration = [], '0'
    for path in sorted(work_dir.glob('*/*.log'))[-1:]:
        for line in path.read_text().splitlines():
            iteration = ([iteration] + re.findall(r'\(train\) +\[ *(\d+)/', line))[-1]
            verdict = re.search(
                r'- (?:WARNING|ERROR) - .*?'
                r'((?:Loss|Learning rate|Nothing|Features|Held-out|Most) [^.]*)\.',
                line,
            )
            if verdict:
                found.append(f'{verdict[1]}, said after iteration {iteration}')
    return found


@one_line_errors()
def main() -> None:
    """Train, print the verdicts, write the reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--iters', type=positive_int, default=400, help='length of a run (400)'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/five-runs'),
        help='output folder (work_dirs/five-runs)',
    )
    parser.add_argument(
        '--only', nargs='+', choices=RUNS, default=list(RUNS), help='runs (all)'
    )
    args = parser.parse_args()
    if args.iters < 12:
        raise UserError(
            f'--iters must be at least 12, got {args.iters}: a run has 12 validations.'
        )
    for name in args.only:
        Runner.from_cfg(build_config(name, args.work_dir, args.iters)).train()
    for name in args.only:
        for line in verdicts(args.work_dir / name) or ['nothing wrong']:
            print(f'{name}: {line}')
    folders = [args.work_dir / name for name in RUNS if (args.work_dir / name).is_dir()]
    print(write_report(folders, args.work_dir / 'report.html'))


if __name__ == '__main__':
    main()
