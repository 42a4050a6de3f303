"""Check that reports and logs tell a good run from four bad ones.

Trains a small model on the digits of scikit-learn: as it should be; with a learning
rate that is far too high; on far too few images for far too long; with a target that
carries no information; and with 90 % of each image hidden. Writes the report of each
run and one of all of them, and prints the verdicts.
"""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from mmmixmim.evaluation import diagnose, read_history
from mmmixmim.models import MixMIMPretrainHead
from mmmixmim.registry import MODELS
from mmmixmim.runtime import one_line_errors, positive_int
from mmmixmim.visualization import write_report

ROOT = Path(__file__).resolve().parents[2]
CONFIG = next((ROOT / 'configs' / 'digits').glob('mixmim_mixmim-tiny_*.py'))


@MODELS.register_module()
class ConstantTargetHead(MixMIMPretrainHead):
    """A head with a bug: the same target for all images."""

    def construct_target(self, images: Tensor) -> Tensor:
        """Return cells of zeros."""
        return super().construct_target(images) * 0


def runs(iterations: int) -> dict[str, dict]:
    """Options of each run, by its name."""
    few = dict(train_dataloader=dict(dataset=dict(samples_per_class=1)))
    return {
        'good': {},
        'high-learning-rate': dict(optim_wrapper=dict(optimizer=dict(lr=1.0))),
        'few-images': few,
        'broken-target': dict(model=dict(head=dict(type='ConstantTargetHead'))),
        'blank': dict(model=dict(data_preprocessor=dict(std=[1e6]))),
        'mask-ratio-0.9': dict(model=dict(mask_ratio=0.9)),
    }


def build_config(options: dict, work_dir: Path, iterations: int) -> Config:
    """Build the config of a run: the digits' recipe, smaller and shorter."""
    cfg = Config.fromfile(CONFIG)
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
            work_dir=str(work_dir),
        )
    )
    cfg.merge_from_dict(options)
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename='config.py')


@one_line_errors()
def main() -> None:
    """Train, write the reports, print the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--iters', type=positive_int, default=600)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/five-runs'))
    parser.add_argument('--only', nargs='+')
    args = parser.parse_args()
    folders = []
    for name, options in runs(args.iters).items():
        if args.only and name not in args.only:
            continue
        folders.append(args.work_dir / name)
        longer = 3 if name == 'few-images' else 1
        cfg = build_config(options, folders[-1], args.iters * longer)
        Runner.from_cfg(cfg).train()
    for folder in folders:
        for finding in diagnose(read_history(folder)):
            print(f'{folder.name}: {finding.title}. {finding.message}')
    print(write_report(folders, args.work_dir / 'report.html'))


if __name__ == '__main__':
    main()
