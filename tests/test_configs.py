"""Every config file loads and builds; small ones also train."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmixmim.registry import DATASETS, MODELS

from .conftest import ROOT

CONFIGS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    return cfg


def test_names_are_unique():
    assert len({path.name for path in CONFIGS}) == len(CONFIGS)


def test_model_builds(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert any(p.requires_grad for p in model.parameters())


def test_pipelines_build(cfg, image_folder):
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader) is None:
            continue
        dataset = cfg[loader].dataset
        if dataset.type == 'ImageFolder':
            dataset.data_root = str(image_folder)
        sample = DATASETS.build(dataset)[0]
        assert sample['inputs'].dtype == torch.uint8
        assert sample['inputs'].shape[1:] == cfg.model.backbone.img_size or (
            sample['inputs'].shape[1:] == (cfg.model.backbone.img_size,) * 2
        )


def test_schedule_ends_with_the_training(cfg):
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs


def test_pretraining_decays_what_the_authors_decay(reference):
    """Weight decay of every parameter, by the optimizer that MMEngine builds."""
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(
        ROOT / 'configs' / 'folder' / 'mixmim_mixmim-base_1xb64-coslr-300e_folder.py'
    )
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    decay = {p: group['weight_decay'] for group in groups for p in group['params']}

    expected = reference['pretrain_base_param_groups']
    named = {
        name.split('.', 1)[1]: decay[parameter]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    assert named == {name: entry['weight_decay'] for name, entry in expected.items()}
