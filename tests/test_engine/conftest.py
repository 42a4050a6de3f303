"""Fixtures of the engine's tests."""

import pytest
from torch import distributed


@pytest.fixture
def process_group():
    """A process group of this process alone."""
    store = distributed.HashStore()
    distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
