"""Long runs need no more memory, file handles or threads than short ones."""

import os
import threading
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from .runs import tiny_finetuning, train


class ResourceHook(Hook):
    """Note what the process uses after some iterations, in a file."""

    priority = 'LOWEST'

    def __init__(self, path, *iterations):
        self.path = Path(path)
        self.iterations = iterations

    def after_train_iter(self, runner, *args, **kwargs):
        if runner.iter + 1 in self.iterations:
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            figures = (
                pages * os.sysconf('SC_PAGE_SIZE') / 2**20,
                len(os.listdir('/proc/self/fd')),
                threading.active_count(),
                len(os.listdir('/proc/self/task')),
            )
            with self.path.open('a') as file:
                print(*figures, file=file)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self').exists(), reason='reads /proc')
@pytest.mark.parametrize('workers', [0, 1])
def test_thousands_of_iterations_use_no_more_than_the_first(workers, tmp_path):
    """1500 iterations with loaders, validations and checkpoints started 50 times."""
    cfg = tiny_finetuning(tmp_path, workers)
    cfg.train_cfg.max_epochs = 50
    cfg.train_dataloader.update(
        num_batch_per_epoch=30, batch_size=2, persistent_workers=False
    )
    cfg.default_hooks.logger.interval = 30
    cfg.default_hooks.preemption.minutes = 30
    hook = ResourceHook, tmp_path / 'figures.txt', 31 * 10, 31 * 45
    assert train(cfg, hook) == 0
    lines = (tmp_path / 'figures.txt').read_text().splitlines()
    early, late = ([float(each) for each in line.split()] for line in lines)
    assert late[1:] == early[1:]
    # A batch or a set of weights kept per iteration would be ten times as much.
    assert late[0] - early[0] < 10
