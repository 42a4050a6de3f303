import pytest
from mmengine.config import Config

from mmmixmim.runtime.saved_config import read_config_text

from ..scripts import PRETRAIN


def test_a_saved_config_is_read_as_mmengine_reads_it(tmp_path):
    cfg = Config.fromfile(PRETRAIN)
    cfg.dump(tmp_path / 'config.py')
    found = read_config_text((tmp_path / 'config.py').read_text())
    assert found.keys() == cfg.keys()
    assert found['model'] == cfg.to_dict()['model']
    assert found['train_cfg'] == cfg.to_dict()['train_cfg']


def test_what_is_no_literal_stays_text():
    text = 'a = dict(b=open("x"), c=-1, **d)\ne = {1: (2, 3)}\nf = [g, None]\nf.x = 1'
    found = read_config_text(text)
    assert found['a']['b'] == "open('x')" and found['a']['c'] == -1
    assert found['e'] == {'1': [2, 3]} and found['f'] == ['g', None]


@pytest.mark.parametrize('text', ('', 'a = (', 'a\0', '(' * 10_000))
def test_what_is_no_python_has_no_entries(text):
    assert read_config_text(text) == {}
