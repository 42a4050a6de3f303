"""Run scripts one after the other, with a line that says how far they are."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ['Progress', 'Step', 'duration', 'run_steps']


@dataclass
class Step:
    """One command of several.

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
            f'\n{"".join(lines[-15:])}\nerror: {step.name} ended with status '
            f'{process.returncode}, see {log}'
        )
    progress.show(step, 1)
    return ''.join(lines)


def run_steps(steps: list[Step], logs: Path) -> tuple[dict[str, str], float]:
    """Run all steps and keep what they print.

    Args:
        steps: What to run, in this order.
        logs: Folder of their logs.

    Returns:
        The output of each step by its name, and the seconds that all took.
    """
    progress = Progress(steps)
    outputs = {
        step.name: run(step, progress, logs / f'{step.name}.log') for step in steps
    }
    return outputs, time.monotonic() - progress.start
