"""DeepSpeed, where it is installed in ``test_tools/test_distributed.py``."""

import importlib.util
import inspect

import pytest
from mmengine._strategy import DeepSpeedStrategy as MMEngineDeepSpeedStrategy
from mmengine.config import Config
from mmengine.registry import STRATEGIES

from mmmixmim.validation import MissingDependencyError

from ...conftest import ALL_CONFIGS

ZERO = [path for path in ALL_CONFIGS if '-zero' in path.stem]


@pytest.mark.parametrize('path', ZERO, ids=lambda path: path.stem)
def test_configs_have_arguments_of_the_strategy(path):
    strategy = Config.fromfile(path).strategy
    arguments = inspect.signature(MMEngineDeepSpeedStrategy).parameters
    assert strategy.pop('type') == 'mmmixmim.DeepSpeedStrategy'
    assert strategy.keys() <= arguments.keys()


@pytest.mark.skipif(
    importlib.util.find_spec('deepspeed') is not None, reason='about those without'
)
def test_without_deepspeed_the_error_says_how_to_install_it():
    with pytest.raises(MissingDependencyError, match='pip install .*deepspeed<0.19'):
        STRATEGIES.build(dict(type='mmmixmim.DeepSpeedStrategy'))
