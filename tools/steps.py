"""Run scripts one after another or in parallel, with a progress line."""

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

from mmmixmim.text import duration


@dataclass
class Step:
    """One script of a sequence.

    Attributes:
        name: Shown in the progress line; also the name of the log file.
        command: Script and arguments.
        cost: Expected duration relative to the other steps. Parallel steps divide
            their common duration among them.
        epochs: Number of epochs, for training scripts.
    """

    name: str
    command: list
    cost: float
    epochs: int = 0


class Progress:
    """A line with the current step and the estimated time left."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.total = sum(step.cost for step in steps)
        self.start = self.printed = time.monotonic()
        self.live = sys.stdout.isatty()
        self.fractions = dict.fromkeys((step.name for step in steps), 0.0)
        self.lock = threading.Lock()

    def show(self, step: Step, fraction: float, details: str = '') -> None:
        """Update the line; if it is not a terminal, at most every ten seconds."""
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
        if done > 0.04 * self.total:  # earlier, imports dominate
            seconds = (now - self.start) * (self.total / done - 1)
            left = f'about {duration(seconds)} left'
        line = f'[{number + 1}/{len(self.steps)}] {step.name:16} {fraction:4.0%}  '
        line = f'{line}{details:14}{left}'
        print(f'\r{line:78}' if self.live else line, end='' if self.live else '\n')
        sys.stdout.flush()


def run(step: Step, progress: Progress, log: Path, threads: int, running: list) -> str:
    """Run a step, follow its training log, and return its output."""
    pattern = re.compile(
        r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\].*?\sloss: ([\d.]+)'
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
            f'\n{"".join(lines[-15:])}\nerror: {step.name} failed with exit status '
            f'{process.returncode}, see {log}'
        )
    progress.show(step, 1)
    return ''.join(lines)


def run_steps(
    steps: list[Step | tuple[Step, ...]], logs: Path
) -> tuple[dict[str, str], float]:
    """Run all steps and collect their output.

    Args:
        steps: Steps in the order to run them. The steps of a tuple run in parallel
            and share the threads, which is faster for small models.
        logs: Folder for the log files.

    Returns:
        The output of each step by name, and the total time in seconds.

    Raises:
        SystemExit: If a step fails. Steps that run in parallel are terminated.
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
