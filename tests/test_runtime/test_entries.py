import pytest
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmmixmim.runtime.entries import (
    config_entry,
    is_amp,
    training_precision,
    type_name,
)
from mmmixmim.runtime.saved_config import read_config_text

from ..conftest import ROOT


@pytest.mark.parametrize('kind', [dict, Config])
def test_a_dotted_key_of_a_live_or_saved_config(kind):
    cfg = kind(dict(a=dict(b=dict(c=1), none=None), name='d'))
    assert config_entry(cfg, 'a.b.c') == 1 and config_entry(cfg, 'a.b') == dict(c=1)
    for missing in ('other', 'a.other.c', 'a.none.c', 'name.d', 'a.none'):
        assert config_entry(cfg, missing) is None


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
