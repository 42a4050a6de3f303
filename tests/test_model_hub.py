"""This project's models in mmpretrain's model hub."""

import mmpretrain
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from PIL import Image

from mmmixmim.datasets import ChannelStatistics
from mmmixmim.evaluation import complexity
from mmmixmim.model_hub import register_models
from mmmixmim.models.meta import meta_device

from .conftest import ROOT

INDEX = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
MODELS = {
    entry['Name']: entry
    for path in INDEX
    for entry in yaml.safe_load((ROOT / path).read_text())['Models']
}
FINETUNED = 'mixmim-base_mixmim-300e-pre_3rdparty-mmpretrain_in1k'


def test_every_config_is_listed():
    configs = {p.stem: p for p in (ROOT / 'configs').rglob('*.py')}
    recipes = {name for name, p in configs.items() if '_base_' not in p.parts}
    assert recipes == {name for name in MODELS if '3rdparty' not in name}
    for name, entry in MODELS.items():
        assert (ROOT / entry['Config']).is_file()
        assert '3rdparty' in name or entry['Config'].endswith(f'/{name}.py')


def test_list_models():
    register_models()
    assert MODELS.keys() <= set(mmpretrain.list_models())
    assert {name for name in MODELS if 'simmim' not in name} <= set(
        mmpretrain.list_models('*mixmim*')
    )


DENSE = [name for name in MODELS if 'rcnn' in name or 'upernet' in name]


@pytest.mark.parametrize('name', [name for name in MODELS if name not in DENSE])
def test_get_model(name, tmp_path, monkeypatch):
    """It has its config's backbone, and the figures in its metafile are right."""
    cfg = Config.fromfile(ROOT / MODELS[name]['Config'])
    if 'statistics' in cfg.model.data_preprocessor:  # measured on the user's images
        channels = cfg.model.backbone.in_channels
        monkeypatch.chdir(tmp_path)
        zeros, ones = [0.0] * channels, [1.0] * channels
        statistics = ChannelStatistics(zeros, ones, zeros, ones, pixels=1, images=1)
        statistics.save(cfg.model.data_preprocessor.statistics)
    else:
        channels = len(cfg.model.data_preprocessor.mean)
    with meta_device():
        model = mmpretrain.get_model(name)
        assert type(model.backbone).__name__ == cfg.model.backbone.type
        images = torch.empty(2, channels, cfg.img_size, cfg.img_size)
        pretraining = hasattr(model, 'reconstruct')
        arguments = dict(data_samples=None) if pretraining else {}
        mode = 'loss' if pretraining else 'tensor'
        figures = complexity(model, images, mode=mode, **arguments)['total']
    listed = MODELS[name]['Metadata']
    assert figures == dict(parameters=listed['Parameters'], macs=listed['FLOPs'])
    assert listed['Epochs'] == cfg.train_cfg.max_epochs


@pytest.mark.parametrize('name', DENSE)
def test_get_model_of_mmdet_and_mmseg(name):
    cfg = Config.fromfile(ROOT / MODELS[name]['Config'])
    with meta_device():
        model = mmpretrain.get_model(name)
    kind = cfg.model.backbone.type.removeprefix('mmmixmim.').removeprefix('mmpretrain.')
    assert type(model.backbone).__name__ == kind
    listed = MODELS[name]['Metadata']
    assert sum(p.numel() for p in model.parameters()) == listed['Parameters']
    if 'Iterations' in listed:
        assert listed['Iterations'] == cfg.train_cfg.max_iters
    else:
        repeated = cfg.train_dataloader.dataset.get('times', 1)
        assert listed['Epochs'] == cfg.train_cfg.max_epochs * repeated


@pytest.mark.parametrize(
    'name', [name for name, entry in MODELS.items() if entry.get('Results')]
)
def test_figures_say_who_measured_them(name):
    assert MODELS[name]['Metadata']['Measured By'] in (
        "the paper's authors",
        'the authors of mmpretrain',
    )


@pytest.mark.slow
def test_published_checkpoint_infers_as_in_mmpretrain(tmp_path, monkeypatch, server):
    """Full size, in mmpretrain's checkpoint format, from a server."""
    theirs = mmpretrain.get_model('mixmim-base_mixmim-pre_8xb128-coslr-100e_in1k')
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    weights = MODELS[FINETUNED]['Weights']
    folder, file = weights.rsplit('/', 1)
    torch.save(dict(state_dict=theirs.state_dict(), meta={}), tmp_path / file)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))

    address = (f'{folder}/', server(tmp_path))
    model = mmpretrain.get_model(FINETUNED, pretrained=True, url_mapping=address)
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / 'picture.png')
    theirs._config = model._config  # for the same preprocessing
    ours, reference = (
        mmpretrain.inference_model(each, str(tmp_path / 'picture.png'))
        for each in (model, theirs)
    )
    assert ours['pred_label'] == reference['pred_label']
    assert ours['pred_score'] == pytest.approx(reference['pred_score'], rel=1e-3)
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(model(images), theirs(images), rtol=1e-4, atol=1e-4)
