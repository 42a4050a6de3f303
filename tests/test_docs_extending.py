"""The encoder of docs/extending.md works as it is printed there."""

import re
import sys

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from PIL import Image

from mmmixmim.models import MixMIM, check_encoder
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

from .conftest import ROOT

PAGE = (ROOT / 'docs' / 'extending.md').read_text()
CODE = dict(re.findall(r'```python\n# (\w+)\.py\n(.*?)```', PAGE, re.DOTALL))


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """Make the file, import it as a user would, and forget it afterwards."""

    def write(code=CODE['tiny_encoder']):
        (tmp_path / 'tiny_encoder.py').write_text(code)
        import tiny_encoder

        return tiny_encoder.TinyEncoder

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop('tiny_encoder', None)
    MODELS.module_dict.pop('TinyEncoder', None)


def test_the_file_is_short():
    lines = [line for line in CODE['tiny_encoder'].splitlines() if line.strip()]
    assert len(lines) <= 55 and max(map(len, lines)) <= 88


def test_it_is_an_encoder(encoder):
    check_encoder(encoder())


def test_the_leak_that_the_page_describes(encoder):
    code = CODE['tiny_encoder']
    good = 'parts = [self.conv(part.permute(0, 3, 1, 2)) for part in parts]'
    assert good in code
    mixture = 'parts = [self.conv(maps.permute(0, 3, 1, 2))] * len(parts)'
    leaky = code.replace(good, mixture)
    with pytest.raises(UserError) as error:
        check_encoder(encoder(leaky))
    printed = re.search(r'```text\n(TinyEncoder lets.*?)```', PAGE, re.DOTALL)[1]
    found, printed = (
        re.sub(r'\d+', 'N', text)
        for text in (str(error.value), ' '.join(printed.split()))
    )
    assert found == printed


def test_a_module_between_split_and_merge_is_not_blamed(encoder):
    code = CODE['tiny_encoder']
    assert code.count('self.norm(tokens), mask)') == 1
    leaky = code.replace('self.norm(tokens), mask)', 'self.norm(tokens), None)')
    with pytest.raises(UserError, match='depends on the partner is proj: tokens'):
        check_encoder(encoder(leaky))


def test_its_config_trains(encoder, tmp_path, monkeypatch):
    """Three epochs on images drawn here, through the real Runner."""
    encoder()
    rng = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for i in range(8):
        pixels = rng.integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'images' / f'{i}.png')
    path = tmp_path / 'tiny_pretrain.py'
    local = CODE['tiny_pretrain'].replace("['configs/", f"['{ROOT}/configs/")
    path.write_text(local)
    cfg = Config.fromfile(path)
    assert cfg.model.backbone == dict(type='TinyEncoder')
    init_default_scope(cfg.default_scope)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'images')
    cfg.train_dataloader.dataset.pipeline[0].update(scale=64)
    cfg.model.neck = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)
    cfg.train_cfg.max_epochs = 3
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert type(runner.model.backbone).__name__ == 'TinyEncoder'
    assert (tmp_path / 'run' / 'epoch_3.pth').exists()


def test_its_weights_are_fine_tuned(encoder, tmp_path):
    """By the page's config, which refuses other weights, and in mmdet."""
    pretrained = MixMIM(encoder()())
    checkpoint = tmp_path / 'epoch_300.pth'
    torch.save(dict(state_dict=pretrained.state_dict()), checkpoint)
    path = tmp_path / 'tiny_finetune.py'
    local = CODE['tiny_finetune'].replace("['configs/", f"['{ROOT}/configs/")
    path.write_text(local)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    init_cfg = cfg.model.backbone.init_cfg
    init_cfg.checkpoint = str(checkpoint)

    model = MODELS.build(cfg.model)
    model.init_weights()
    weight = pretrained.backbone.qkv.weight
    assert torch.equal(model.backbone.qkv.weight, weight)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    assert {group['weight_decay'] for group in groups} == {0.05, 0}
    assert len({group['lr'] for group in groups}) == 1

    cfg.model.backbone.dim = 16
    with pytest.raises(UserError, match='does not fit this TinyEncoder'):
        MODELS.build(cfg.model).init_weights()

    detectors = pytest.importorskip('mmdet.registry').MODELS
    backbone = detectors.build(dict(type='mmmixmim.TinyEncoder', init_cfg=init_cfg))
    backbone.init_weights()
    assert torch.equal(backbone.qkv.weight, weight)
