"""Fixtures and helpers of the engine's tests."""

import copy
from functools import lru_cache

import pytest
from mmengine.config import Config
from torch import distributed


@lru_cache
def _parse(path):
    # Runners write the config three times. Formatting it would dominate the tests.
    content = Config.fromfile(path).to_dict()
    return Config(content, filename=str(path), format_python_code=False)


def read_config(path):
    """A copy of a config that a test may change."""
    return copy.deepcopy(_parse(path))


@pytest.fixture
def process_group():
    """A process group of this process alone."""
    store = distributed.HashStore()
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture(scope='session')
def left_alone(tmp_path_factory):
    """Final checkpoints of runs that nobody killed, by loop and number of processes."""
    from .runs import CONFIGS, LAST, train

    finals = {}

    def final(loop, processes):
        if (loop, processes) not in finals:
            folder = tmp_path_factory.mktemp('left_alone')
            assert train(CONFIGS[loop](folder), processes=processes) == 0
            finals[loop, processes] = folder / LAST[loop]
        return finals[loop, processes]

    return final
