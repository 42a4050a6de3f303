"""The page on watching a run says what is so."""

import inspect
import re

import pytest
from mmengine.config import Config

from mmmixmim.registry import DATASETS, LOOPS

from .conftest import ROOT
from .scripts import FOLDER

PAGE = (ROOT / 'docs' / 'watching.md').read_text()


def test_cost_of_a_measure_is_what_the_page_prints(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(r'```python\n(import torch\n.*?)```', PAGE, re.DOTALL)
    exec(code, {})
    printed = float(capsys.readouterr().out)
    (written,) = re.findall(r'# (0\.\d+)\n', code)
    assert printed == pytest.approx(float(written), abs=0.015)
    # What a measure costs at the default intervals of a large folder.
    cfg = Config.fromfile(FOLDER)
    share = cfg.train_dataloader.dataset.held_out
    cost = printed * share / (1 - share) / cfg.train_cfg.val_interval
    assert cost < 0.007


def test_options_of_the_page_reach_what_a_run_reads():
    before = Config.fromfile(FOLDER).to_dict()
    table = PAGE.split('| to | add to')[1].split('\n\n')[0]
    options = dict(re.findall(r'([a-z_]+(?:\.[a-z_]+)+)=(\w+)', table))
    assert len(options) >= 5
    for option in options:
        node = before
        *path, last = option.split('.')
        for part in path:
            node = node[part]
        registry = DATASETS if 'dataset' in path else LOOPS
        arguments = inspect.signature(registry.get(node['type'])).parameters
        assert last in node or last in arguments, option
