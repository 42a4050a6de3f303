"""Demonstrate MixMIM on scikit-learn's digits, on a CPU, in a few minutes.

Pretrains a small model on unlabelled digits, compares linear probing and fine-tuning
with and without pretraining, and draws reconstructions.
"""

import argparse
import json
import re
from pathlib import Path

from mmengine.config import Config
from steps import Step, run_steps  # beside this script

from mmmixmim.runtime import one_line_errors, random_seed
from mmmixmim.text import duration

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'digits'
PRETRAIN = CONFIGS / 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'
CLASSIFY = CONFIGS / 'mixmim-tiny_1xb64-coslr-20e_digits.py'
TEN_SHOT = CONFIGS / 'mixmim-tiny_1xb20-coslr-40e_digits-10shot.py'
LABELS = ('10', '50', 'all')


def max_epochs(config: Path) -> int:
    """Read the number of epochs of a config."""
    return Config.fromfile(config).train_cfg.max_epochs


def plan(work_dir: Path, seed: int) -> list[Step]:
    """List the steps of the demo."""
    checkpoint = work_dir / 'pretrain' / f'epoch_{max_epochs(PRETRAIN)}.pth'
    encoder = [
        'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        'model.backbone.init_cfg.prefix=backbone.',
    ]

    def train(name: str, config: Path, cost: float, *options: str) -> Step:
        command = [TOOLS / 'train.py', config, '--work-dir', work_dir / name]
        command += ['--cfg-options', f'randomness.seed={seed}', *options]
        return Step(name, command, cost, max_epochs(config))

    def probe(name: str, *arguments: Path) -> Step:
        command = [TOOLS / 'linear_probe.py', CLASSIFY, *arguments, '--seed', seed]
        command += ['--samples-per-class', *LABELS]
        return Step(name, [*command, '--out', work_dir / f'{name}.json'], cost=8)

    picture = [TOOLS / 'visualize_reconstruction.py', PRETRAIN, checkpoint]
    picture += ['--out', work_dir / 'reconstruction.png']
    picture += ['--cfg-options', 'train_dataloader.dataset.split=test']
    return [
        train('pretrain', PRETRAIN, 110),
        Step('picture', picture, cost=8),
        probe('probe-untrained'),
        probe('probe-pretrained', checkpoint),
        train('from-scratch', TEN_SHOT, 25),
        train('fine-tuned', TEN_SHOT, 25, *encoder),
    ]


def summarise(work_dir: Path, outputs: dict[str, str], seconds: float) -> str:
    """Format the results as a table."""

    def probe(name: str) -> str:
        figures = json.loads((work_dir / f'{name}.json').read_text())
        return ''.join(f'{figures[label]:12.1f}' for label in LABELS)

    def top1(name: str) -> str:
        found = re.findall(r'accuracy/top1: ([0-9.]+)', outputs[name])
        return f'{float(found[-1]):12.1f}'

    head = ''.join(f'{label:>12}' for label in LABELS)
    return f"""
Accuracy in percent on the test digits, by number of labels per class
{'':32}{head}
{'linear probe, untrained encoder':32}{probe('probe-untrained')}
{'linear probe, MixMIM encoder':32}{probe('probe-pretrained')}
{'trained from scratch':32}{top1('from-scratch')}
{'fine-tuned from MixMIM':32}{top1('fine-tuned')}

Reconstructions     {work_dir / 'reconstruction.png'}
Pretrained model    {work_dir / 'pretrain'}
Figures and logs    {work_dir}
Took {duration(seconds)}."""


@one_line_errors()
def main() -> None:
    """Run all steps and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=random_seed, default=0, help='random seed (0)')
    parser.add_argument(
        '--work-dir', type=Path, help='output folder (work_dirs/demo-seed<seed>)'
    )
    args = parser.parse_args()
    work_dir = args.work_dir or Path('work_dirs') / f'demo-seed{args.seed}'

    outputs, seconds = run_steps(plan(work_dir, args.seed), work_dir / 'logs')
    summary = summarise(work_dir, outputs, seconds)
    (work_dir / 'summary.txt').write_text(summary + '\n')
    print(summary)


if __name__ == '__main__':
    main()
