import pytest
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmmixmim.runtime.saved_config import (
    is_amp,
    read_config_text,
    training_precision,
    type_name,
)

from ..conftest import ROOT
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


@pytest.mark.parametrize(
    'name, precision',
    [
        ('digits/mixmim_mixmim-tiny_1xb64-coslr-40e_digits.py', 'fp32'),
        ('mixmim/mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py', 'fp16'),
        ('mixmim/mixmim_mixmim-large_16xb128-fsdp-coslr-600e_in1k.py', 'bf16'),
        ('mixmim/mixmim_mixmim-large_16xb128-zero2-coslr-600e_in1k.py', 'bf16'),
    ],
)
def test_the_precision_of_recipes(name, precision):
    cfg = Config.fromfile(ROOT / 'configs' / name).to_dict()
    assert training_precision(cfg) == precision


@pytest.mark.parametrize('kind', ['Config', 'mmengine.Config', Config])
def test_the_name_of_a_type(kind):
    assert type_name(dict(type=kind)) == 'Config'
    assert type_name({}) == '' and type_name({}, 'Config') == 'Config'


@pytest.mark.parametrize(
    'kind',
    [
        'AmpOptimWrapper',
        'mmengine.AmpOptimWrapper',
        'mmengine.optim.AmpOptimWrapper',
        AmpOptimWrapper,
    ],
)
def test_the_precision_of_other_configs(kind):
    wrapper = dict(type=kind, dtype='bfloat16')
    assert training_precision(dict(optim_wrapper=wrapper)) == 'bf16'


def test_the_precision_of_unknown_wrappers():
    for wrapper in (dict(type='Other'), dict(), None, 'text'):
        assert training_precision(dict(optim_wrapper=wrapper)) is None
    plain = dict(type='mmengine.OptimWrapper')
    assert training_precision(dict(optim_wrapper=plain)) == 'fp32'


def test_mixed_precision_of_a_lazy_config(tmp_path):
    text = 'from mmengine.optim import AmpOptimWrapper\n'
    text += "optim_wrapper = dict(type=AmpOptimWrapper, dtype='bfloat16')\n"
    (tmp_path / 'lazy.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'lazy.py', lazy_import=True)
    assert is_amp(cfg.optim_wrapper)
    cfg.dump(tmp_path / 'saved.py')
    saved = read_config_text((tmp_path / 'saved.py').read_text())
    assert training_precision(saved) == 'bf16'
