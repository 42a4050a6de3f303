"""Show MixMIM at work on scikit-learn's digits, on a CPU, in a few minutes.

Pretrains a small model on unlabelled digits, compares linear probes and
fine-tuning with and without the pretraining, and draws reconstructions.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs' / 'digits'
PRETRAIN = CONFIGS / 'mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py'
CLASSIFY = CONFIGS / 'mixmim-tiny_1xb64-coslr-20e_digits.py'
TEN_SHOT = CONFIGS / 'mixmim-tiny_1xb20-coslr-40e_digits-10shot.py'
LABELS = ('10', '50', 'all')


@dataclass
class Step:
    """One command of the demo.

    Attributes:
        name: Name of its log file and in the progress line.
        command: Script and arguments.
        cost: Expected share of the whole time, in any unit.
        epochs: Number of epochs if it trains.
    """

    name: str
    command: list
    cost: float
    epochs: int = 0


def max_epochs(config: Path) -> int:
    """Number of epochs that a config trains for."""
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


def duration(seconds: float) -> str:
    """Write a time in minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes} min {seconds:02d} s'


class Progress:
    """One line that says what runs and how long the rest takes."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.total = sum(step.cost for step in steps)
        self.start = self.printed = time.monotonic()
        self.live = sys.stdout.isatty()

    def show(self, step: Step, fraction: float, details: str = '') -> None:
        """Print the line, where it cannot be overwritten only now and then."""
        now = time.monotonic()
        if not self.live and fraction not in (0, 1) and now - self.printed < 10:
            return
        self.printed = now
        number = self.steps.index(step)
        done = sum(s.cost for s in self.steps[:number]) + fraction * step.cost
        left = 'estimating the time left'
        if done > 0.04 * self.total:  # before that it is mostly imports
            seconds = (now - self.start) * (self.total / done - 1)
            left = f'about {duration(seconds)} left'
        line = f'[{number + 1}/{len(self.steps)}] {step.name:16} {fraction:4.0%}  '
        line = f'{line}{details:14}{left}'
        print(f'\r{line:78}' if self.live else line, end='' if self.live else '\n')
        sys.stdout.flush()


def run(step: Step, progress: Progress, log: Path) -> str:
    """Run a step, follow its training log, and return what it printed."""
    pattern = re.compile(
        r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].*loss: ([\d.]+)'
    )
    command = [sys.executable, *map(str, step.command)]
    progress.show(step, 0)
    lines = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open('w') as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout:
            file.write(line)
            lines.append(line)
            match = pattern.search(line)
            if match:
                epoch, i, n = (int(group) for group in match.groups()[:3])
                fraction = ((epoch - 1) * n + i) / (step.epochs * n)
                progress.show(step, min(fraction, 0.99), f'loss {match[4][:5]}')
    if process.returncode:
        raise SystemExit(
            f'\n{"".join(lines[-15:])}\nerror: {step.name} failed, see {log}'
        )
    progress.show(step, 1)
    return ''.join(lines)


def summarise(work_dir: Path, outputs: dict[str, str], seconds: float) -> str:
    """Make the table of what came out."""

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


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=0, help='seed of everything (0)')
    parser.add_argument(
        '--work-dir', type=Path, help='where results go (work_dirs/demo-seed<seed>)'
    )
    args = parser.parse_args()
    work_dir = args.work_dir or Path('work_dirs') / f'demo-seed{args.seed}'

    steps = plan(work_dir, args.seed)
    progress = Progress(steps)
    outputs = {
        step.name: run(step, progress, work_dir / 'logs' / f'{step.name}.log')
        for step in steps
    }
    summary = summarise(work_dir, outputs, time.monotonic() - progress.start)
    (work_dir / 'summary.txt').write_text(summary + '\n')
    print(summary)


if __name__ == '__main__':
    main()
