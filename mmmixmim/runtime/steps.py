"""Run scripts in turn or at once, with a line that says how far they are."""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ['Progress', 'Step', 'duration', 'run_steps']


@dataclass
class Step:
    """One command of several.

    Attributes:
        name: Name of its log file and in the progress line.
        command: Script and arguments.
        cost: Expected share of the whole time, in any unit; of steps that run at
            once, their part of it.
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
        self.fractions = dict.fromkeys((step.name for step in steps), 0.0)
        self.lock = threading.Lock()

    def show(self, step: Step, fraction: float, details: str = '') -> None:
        """Print the line, where it cannot be overwritten only now and then."""
        with self.lock:
            self._show(step, fraction, details)

    def _show(self, step: Step, fraction: float, details: str) -> None:
        now = time.monotonic()
        self.fractions[step.name] = fraction
        if not self.live and fraction not in (0, 1) and now - self.printed < 10:
            return
        self.printed = now
        number = self.steps.index(step)
        done = sum(each.cost * self.fractions[each.name] for each in self.steps)
        left = 'estimating the time left'
        if done > 0.04 * self.total:  # before that it is mostly imports
            seconds = (now - self.start) * (self.total / done - 1)
            left = f'about {duration(seconds)} left'
        line = f'[{number + 1}/{len(self.steps)}] {step.name:16} {fraction:4.0%}  '
        line = f'{line}{details:14}{left}'
        print(f'\r{line:78}' if self.live else line, end='' if self.live else '\n')
        sys.stdout.flush()


def run(step: Step, progress: Progress, log: Path, threads: int, running: list) -> str:
    """Run a step, follow its training log, and return what it printed."""
    pattern = re.compile(
        r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].*loss: ([\d.]+)'
    )
    command = [sys.executable, *map(str, step.command)]
    environment = os.environ | dict(OMP_NUM_THREADS=str(threads))
    progress.show(step, 0)
    lines = []
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open('w') as file,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process,
    ):
        running.append(process)
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


def run_steps(
    steps: list[Step | tuple[Step, ...]], logs: Path
) -> tuple[dict[str, str], float]:
    """Run all steps and keep what they print.

    Args:
        steps: What to run, in this order. Those of a tuple run at once and share
            the threads, which small models use better than one after the other.
        logs: Folder of their logs.

    Returns:
        The output of each step by its name, and the seconds that all took.

    Raises:
        SystemExit: When a step fails. What runs beside it is ended.
    """
    groups = [each if isinstance(each, tuple) else (each,) for each in steps]
    progress = Progress([step for group in groups for step in group])
    outputs = {}
    for group in groups:
        threads = max(1, torch.get_num_threads() // len(group))
        running = []
        with ThreadPoolExecutor(len(group)) as pool:
            results = {
                step.name: pool.submit(
                    run, step, progress, logs / f'{step.name}.log', threads, running
                )
                for step in group
            }
            done, _ = wait(results.values(), return_when=FIRST_EXCEPTION)
            failed = [each.exception() for each in done if each.exception()]
            if failed:
                for process in running:
                    process.terminate()
                raise failed[0]
        outputs |= {name: result.result() for name, result in results.items()}
    return outputs, time.monotonic() - progress.start
