"""Kill training at random moments, resume it, and count the bits that differ.

A run is left alone first. Then runs of the same config are killed by SIGKILL again and
again, at random times of their life, and continued from their last checkpoint. The
weights, the optimizer's state and the losses at their end are compared with those of
the run that was left alone. On a CPU all bits must be equal.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

import mmmixmim.engine  # noqa: F401 (so that no process imports them again)
import mmmixmim.models  # noqa: F401
from mmmixmim.checkpoint.resumable import find_resumable
from mmmixmim.runtime import (
    add_cfg_options,
    build_runner,
    load_config,
    one_line_errors,
    positive_int,
)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a short training')
    parser.add_argument(
        '--kills', type=positive_int, default=200, help='number of kills (200)'
    )
    parser.add_argument(
        '--processes',
        type=positive_int,
        default=1,
        help='number of processes that train together, on the CPU (1)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments (0)')
    add_cfg_options(parser)
    return parser.parse_args()


class Run:
    """A training in processes of its own.

    Args:
        cfg: The config.
        processes: Number of processes.
    """

    def __init__(self, cfg: Config, processes: int) -> None:
        context = multiprocessing.get_context('fork')
        with socket.socket() as server:
            server.bind(('127.0.0.1', 0))
            port = server.getsockname()[1]
        self.processes = [
            context.Process(target=train, args=(cfg, rank, processes, port))
            for rank in range(processes)
        ]
        for process in self.processes:
            process.start()

    def killed_after(self, seconds: float | None) -> bool:
        """Kill all processes after some seconds; return whether one was running."""
        end = None if seconds is None else time.monotonic() + seconds
        for process in self.processes:
            process.join(end and max(0, end - time.monotonic()))
        failed = [each.exitcode for each in self.processes if each.exitcode]
        running = [each for each in self.processes if each.exitcode is None]
        for process in running:
            process.kill()
        for process in running:
            process.join()
        if failed:
            raise SystemExit(f'error: the training failed with status {failed[0]}')
        return bool(running)


def train(cfg: Config, rank: int, processes: int, port: int) -> None:
    """Train in this process, without output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if processes > 1:
        cfg.launcher = 'pytorch'
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            MASTER_ADDR='127.0.0.1',
            MASTER_PORT=str(port),
        )
    build_runner(cfg).train()


def differing_bits(a: object, b: object) -> int:
    """Count the bits in which two nested collections of numbers differ."""
    if isinstance(a, dict):
        a, b = ([each[key] for key in sorted(each, key=str)] for each in (a, b))
    if isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        return sum(map(differing_bits, a, b))
    if isinstance(a, (int, float, torch.Tensor, np.ndarray)):
        a, b = (np.asarray(each).reshape(-1).view(np.uint8) for each in (a, b))
        return int(np.unpackbits(a ^ b).sum())
    assert a == b
    return 0


def final_state(folder: Path) -> dict:
    """Weights, optimizer and losses of the last checkpoint of a run."""
    checkpoint = torch.load(find_resumable(folder), weights_only=True)
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    return dict(
        weights=checkpoint['state_dict'],
        optimizer=checkpoint['optimizer'],
        losses=losses['log_history'],
    )


@one_line_errors()
def main() -> None:
    """Train, kill, resume and compare."""
    args = parse_args()
    torch.set_num_threads(1)  # OpenMP does not survive a fork
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = 'none'
    cfg.setdefault('experiment_name', Path(args.config).stem)
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:

        def start(name: str) -> Run:
            cfg.work_dir = str(Path(folder, name))
            cfg.load_from = find_resumable(cfg.work_dir)
            cfg.resume = bool(cfg.load_from)
            return Run(cfg, args.processes)

        begin = time.monotonic()
        start('alone').killed_after(None)
        duration = time.monotonic() - begin
        expected = final_state(Path(folder, 'alone'))

        kills = runs = different = total = 0
        while kills < args.kills:
            while kills < args.kills and start('killed').killed_after(
                moments.uniform(0, duration)
            ):
                kills += 1
            start('killed').killed_after(None)
            runs += 1
            bits = differing_bits(expected, final_state(Path(folder, 'killed')))
            total += bits
            different += bits > 0
            print(f'{kills} kills, {runs} runs, {total} differing bits', flush=True)
            shutil.rmtree(Path(folder, 'killed'))
    raise SystemExit(bool(different))


if __name__ == '__main__':
    main()
