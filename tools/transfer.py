"""Show what MixMIM pretraining gains in detection and segmentation, on a CPU.

Draws a dataset of shapes, pretrains a small encoder on its unlabelled images, and
trains Mask R-CNN (mmdet) and UperNet (mmsegmentation) on the labelled ones: from that
encoder, and from scratch with the same schedule.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image
from steps import Step, run_steps  # beside this script

from mmmixmim.runtime import one_line_errors, random_seed, require
from mmmixmim.synthetic import CLASSES
from mmmixmim.text import duration
from mmmixmim.visualization import draw_label_maps, paint_instances

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'shapes'
PRETRAIN = next(CONFIGS.glob('mixmim_mixmim-tiny_*.py'))
DETECT = next(CONFIGS.glob('mask-rcnn_*.py'))
SEGMENT = next(CONFIGS.glob('mixmim-tiny_upernet_*.py'))
SPLITS = ('train', 'val', 'test')


def number_of_epochs(config: Path, quick: bool) -> int:
    """Read the number of epochs of a config; one in a quick run."""
    return 1 if quick else Config.fromfile(config).train_cfg.max_epochs


def last_checkpoint(run: Path, config: Path, quick: bool) -> Path:
    """Path of the last checkpoint of a run, even if the folder has others."""
    return run / f'epoch_{number_of_epochs(config, quick)}.pth'


def plan(work_dir: Path, seed: int, quick: bool) -> list[Step | tuple[Step, ...]]:
    """List the steps."""
    data = work_dir / 'data'
    numbers, short = [], []
    if quick:
        numbers = ['--unlabelled', 64, '--train', 16, '--val', 8]
        short = ['train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=1']
    checkpoint = last_checkpoint(work_dir / 'pretrain', PRETRAIN, quick)
    encoder = [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
    ]
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in SPLITS]
    truth = f'evaluator.ann_file={data}/annotations/instances_val.json'
    if quick:
        roots.append('train_cfg.val_interval=1')
    detection = [*roots, f'val_{truth}', f'test_{truth}']

    def train(name: str, config: Path, cost: float, *options: str) -> Step:
        command = [TOOLS / 'train.py', config, '--work-dir', work_dir / name]
        command += ['--cfg-options', f'randomness.seed={seed}', *short, *options]
        return Step(name, command, cost, number_of_epochs(config, quick))

    draw = [TOOLS / 'make_shapes.py', data, '--seed', seed, *numbers]
    unlabelled = f'train_dataloader.dataset.data_root={data}/images/unlabelled'
    return [
        Step('draw', draw, cost=20),
        train('pretrain', PRETRAIN, 400, unlabelled),
        (
            train('detect-scratch', DETECT, 135, *detection),
            train('detect-mixmim', DETECT, 135, *detection, *encoder),
        ),
        (
            train('segment-scratch', SEGMENT, 130, *roots),
            train('segment-mixmim', SEGMENT, 130, *roots, *encoder),
        ),
    ]


def last(name: str, output: str) -> float:
    """Find the last value of a metric in a training log.

    Without any detection, mmdet prints no AP: the value is 0.
    """
    figures = re.findall(rf'{name}: (-?[\d.]+)', output)
    if not figures and 'results of the whole dataset is empty' in output:
        return 0.0
    return float(figures[-1])


def read_figures(outputs: dict[str, str]) -> dict[str, dict[str, float]]:
    """Collect box AP, mask AP and mIoU for both initialisations."""
    return {
        start: dict(
            bbox_AP=last('coco/bbox_mAP', outputs[f'detect-{start}']),
            segm_AP=last('coco/segm_mAP', outputs[f'detect-{start}']),
            mIoU=last('mIoU', outputs[f'segment-{start}']) / 100,
        )
        for start in ('scratch', 'mixmim')
    }


def draw_predictions(work_dir: Path, quick: bool) -> None:
    """Draw ground truth and predictions of all four models on six validation images."""
    from mmdet.apis import inference_detector, init_detector
    from mmseg.apis import inference_model, init_model

    folder = work_dir / 'data'
    files = sorted((folder / 'images' / 'val').iterdir())[:6]
    pictures = [np.asarray(Image.open(file)) for file in files]
    labels = folder / 'labels' / 'val'
    columns = {
        'truth': [
            np.asarray(Image.open(labels / f'{file.stem}.png')).astype(int) - 2
            for file in files
        ]
    }
    for start in ('scratch', 'mixmim'):
        run = work_dir / f'detect-{start}'
        checkpoint = last_checkpoint(run, DETECT, quick)
        model = init_detector(str(run / 'config.py'), str(checkpoint), device='cpu')
        columns[f'Mask R-CNN, {start}'] = maps = []
        for file in files:
            found = inference_detector(model, str(file)).pred_instances
            found = found[found.scores > 0.5].cpu().numpy()
            size = pictures[0].shape[:2]
            maps.append(paint_instances(found.labels, found.masks, size))
    for start in ('scratch', 'mixmim'):
        run = work_dir / f'segment-{start}'
        checkpoint = last_checkpoint(run, SEGMENT, quick)
        model = init_model(str(run / 'config.py'), str(checkpoint), device='cpu')
        columns[f'UperNet, {start}'] = [
            inference_model(model, str(file)).pred_sem_seg.data[0].numpy() - 1
            for file in files
        ]
    draw_label_maps(pictures, columns, list(CLASSES), work_dir / 'predictions.png')


@one_line_errors()
def main() -> None:
    """Run all steps and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=random_seed, default=0, help='random seed (0)')
    parser.add_argument(
        '--work-dir',
        type=Path,
        help='output folder (work_dirs/transfer-seed<seed>, or transfer-quick)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help='train for one epoch on a few images, to check that everything runs',
    )
    args = parser.parse_args()
    name = 'transfer-quick' if args.quick else f'transfer-seed{args.seed}'
    work_dir = args.work_dir or Path('work_dirs') / name
    for scope in ('mmdet', 'mmseg'):
        require(scope)

    outputs, seconds = run_steps(
        plan(work_dir, args.seed, args.quick), work_dir / 'logs'
    )
    draw_predictions(work_dir, args.quick)
    figures = read_figures(outputs)
    (work_dir / 'figures.json').write_text(json.dumps(figures, indent=2) + '\n')
    names = list(figures['scratch'])
    print(f'\n{"":24}' + ''.join(f'{name:>10}' for name in names))
    for start, title in dict(scratch='from scratch', mixmim='from MixMIM').items():
        row = ''.join(f'{figures[start][name]:10.3f}' for name in names)
        print(f'{title:24}{row}')
    print(
        f'\nPredictions          {work_dir / "predictions.png"}\n'
        f'Figures and logs     {work_dir}\nTook {duration(seconds)}.'
    )


if __name__ == '__main__':
    main()
