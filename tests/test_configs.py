"""Every config file loads, builds, and says what its name promises."""

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmixmim.registry import DATASETS, MODELS, PARAM_SCHEDULERS

from .conftest import ALL_CONFIGS, DENSE_CONFIGS, ROOT

CONFIGS = [path for path in ALL_CONFIGS if path not in DENSE_CONFIGS]

RECIPES = [path for path in CONFIGS if 'in1k' in path.stem]


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    return cfg


def test_names_are_unique():
    assert len({path.name for path in ALL_CONFIGS}) == len(ALL_CONFIGS)


def test_model_builds(cfg):
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert any(p.requires_grad for p in model.parameters())


def test_pipelines_build(cfg, image_folder):
    """With pictures of ours in place of a dataset that is not here."""
    size = cfg.model.backbone.img_size
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader) is None:
            continue
        dataset = cfg[loader].dataset
        if dataset.type != 'Digits':
            pipeline = dataset.pipeline
            dataset = dict(
                type='ImageFolder', data_root=image_folder, pipeline=pipeline
            )
        for sample in DATASETS.build(dataset):
            assert sample['inputs'].dtype == torch.uint8
            assert sample['inputs'].shape[1:] == (size, size)


def test_schedule_ends_with_the_training(cfg):
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs


def test_name_tells_batch_epochs_and_precision(cfg):
    name = Path(cfg.filename).stem
    assert f'xb{cfg.train_dataloader.batch_size}-' in name
    assert f'-{cfg.train_cfg.max_epochs}e_' in name
    assert ('-amp-' in name) == (cfg.optim_wrapper.type == 'AmpOptimWrapper')


@pytest.mark.parametrize('cfg', RECIPES, ids=lambda path: path.stem, indirect=True)
def test_recipes_have_the_total_batch_and_rate_that_they_follow(cfg):
    """Batch, learning rate and minimum rate of the authors, and of MAE's probe."""
    name = Path(cfg.filename).stem
    if '-linear-' in name:
        expected = (16384, 6.4, 0)
    else:
        expected = (
            (2048, 1.2e-3, 0) if cfg.model.type == 'MixMIM' else (1024, 2e-3, 1e-6)
        )
    batch = int(re.search(r'_(\d+)xb', name)[1]) * cfg.train_dataloader.batch_size
    rate = cfg.optim_wrapper.optimizer.lr * batch / cfg.auto_scale_lr.base_batch_size
    minimum = cfg.param_scheduler[0].get('min_lr', 0)
    assert cfg.auto_scale_lr.enable
    assert (batch, rate, minimum) == pytest.approx(expected)


@pytest.mark.parametrize(
    'cfg',
    [path for path in CONFIGS if path.parent.name in ('mixmim', 'benchmarks')],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_rates_of_recipes_are_the_authors_at_every_time(cfg):
    """To 1e-6, for all ImageNet's iterations, whatever batch the rate comes from."""
    if cfg.model.type == 'MixMIM':
        warmup, minimum = 40, 0.0
    else:
        warmup, minimum = (10, 0.0) if 'linear' in cfg.filename else (5, 1e-6)
    rate, epochs, length = 3e-3, cfg.train_cfg.max_epochs, 626
    scale = 0.7**7
    groups = [
        dict(params=[torch.zeros(1, requires_grad=True)], lr=rate * s, lr_scale=s)
        for s in (1.0, scale)
    ]
    optimizer = torch.optim.SGD(groups, lr=rate)
    (schedule,) = cfg.param_scheduler
    schedule = PARAM_SCHEDULERS.build(
        schedule, default_args=dict(optimizer=optimizer, epoch_length=length)
    )
    for step in [*range(0, epochs * length, 97), epochs * length - 1]:
        schedule.last_step = step
        epoch = step / length
        phase = math.pi * (epoch - warmup) / (epochs - warmup)
        wanted = minimum + (rate - minimum) * 0.5 * (1 + math.cos(phase))
        if epoch < warmup:
            wanted = rate * epoch / warmup
        assert schedule._get_value() == pytest.approx(
            [wanted, wanted * scale], rel=1e-6, abs=0
        )


PRETRAINING = {
    'model.mask_ratio': 0.5,
    'model.head.norm_pix': True,
    'model.backbone.drop_path_rate': None,
    'optim_wrapper.type': 'AmpOptimWrapper',
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.optimizer.betas': (0.9, 0.95),
    'optim_wrapper.optimizer.weight_decay': 0.05,
    'train_dataloader.dataset.pipeline.0.scale': 224,
    'train_dataloader.dataset.pipeline.0.crop_ratio_range': (0.2, 1.0),
    'train_dataloader.dataset.pipeline.0.interpolation': 'bicubic',
    'train_dataloader.dataset.pipeline.0.flip_prob': 0.5,
}
FINETUNING = {
    'model.train_cfg.augments': [
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ],
    'model.head.loss.label_smooth_val': 0.1,
    'optim_wrapper.type': 'AmpOptimWrapper',
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'optim_wrapper.optimizer.weight_decay': 0.05,
    'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.7,
    'train_cfg.max_epochs': 100,
    'train_dataloader.dataset.pipeline.3.num_policies': 2,
    'train_dataloader.dataset.pipeline.3.magnitude_level': 9,
    'train_dataloader.dataset.pipeline.3.magnitude_std': 0.5,
    'train_dataloader.dataset.pipeline.3.policies': 'timm_increasing',
    'train_dataloader.dataset.pipeline.4.erase_prob': 0.25,
    'train_dataloader.dataset.pipeline.4.mode': 'rand',
}
NORMALISATION = {
    'model.data_preprocessor.mean': [123.675, 116.28, 103.53],
    'model.data_preprocessor.std': [58.395, 57.12, 57.375],
    'model.data_preprocessor.to_rgb': True,
}


def settings(cfg, names):
    """Entries of a config by their dotted names."""
    found = {}
    for name in names:
        node = cfg
        for key in name.split('.'):
            node = node[int(key)] if key.isdigit() else node.get(key)
        found[name] = node
    return found


@pytest.mark.parametrize('cfg', RECIPES, ids=lambda path: path.stem, indirect=True)
def test_settings_of_the_authors(cfg):
    name = Path(cfg.filename).stem
    wanted = dict(NORMALISATION)
    if cfg.model.type == 'MixMIM':
        wanted |= PRETRAINING
    elif 'linear' not in name:
        wanted |= FINETUNING
        rate = dict(base=0.1, large=0.2, huge=0.3)[
            re.search('base|large|huge', name)[0]
        ]
        wanted['model.backbone.drop_path_rate'] = rate
        size, margin = (384, 384) if '384px' in name else (224, 256)
        wanted['train_dataloader.dataset.pipeline.1.scale'] = size
        wanted['test_dataloader.dataset.pipeline.1.scale'] = margin
        if size == 384:
            wanted['model.backbone.window_size'] = [16, 16, 24, 12]
    assert settings(cfg, wanted) == wanted


@pytest.mark.parametrize(
    'cfg',
    [path for path in CONFIGS if '-linear-' in path.stem],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_linear_probing_trains_the_classifier_alone(cfg):
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision takes a GPU
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {'head.fc.weight', 'head.fc.bias'}
    model.train()
    assert not any(
        m.training for m in model.backbone.modules() if not list(m.children())
    )
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    excluded = [
        parameter
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
        if group.get('lars_exclude')
    ]
    assert len(excluded) == 1 and excluded[0] is model.head.fc.bias


class WeightsAtStart(Hook):
    """Keeps a matrix that is trained, as it is after the initialisation."""

    def before_train(self, runner):
        trained = [p for p in runner.model.parameters() if p.requires_grad]
        self.weight = next(p for p in reversed(trained) if p.ndim > 1)
        self.copy = self.weight.clone()


def test_trains_and_evaluates(cfg, image_folder, tmp_path):
    """One real epoch of a small model, in full precision, on a few pictures."""
    arch = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    if cfg.model.backbone.get('in_channels', 3) == 3:
        cfg.model.backbone.update(arch=arch, init_cfg=None, window_size=None)
        if cfg.model.type == 'MixMIM':
            cfg.model.neck.update(decoder_depth=1, decoder_embed_dim=64)
        else:
            cfg.model.head.in_channels = 128
            if cfg.model.backbone.get('frozen_stages'):
                cfg.model.neck[1].input_features = 128
            if dict(type='ClassCheckHook') in cfg.get('custom_hooks', []):
                cfg.model.head.num_classes = cfg.model.data_preprocessor.num_classes = 2
                shutil.copytree(image_folder / 'deep', image_folder / 'other')
                cfg.val_evaluator.topk = cfg.test_evaluator.topk = 1
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 1
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader) is None:
            continue
        cfg[loader].update(batch_size=2, num_workers=0, persistent_workers=False)
        if cfg[loader].dataset.type == 'Digits':
            cfg[loader].num_batch_per_epoch = 2
        else:
            labelled = cfg.model.type != 'MixMIM'
            cfg[loader].dataset = dict(
                type='CustomDataset',
                data_root=str(image_folder),
                with_label=labelled,
                pipeline=cfg[loader].dataset.pipeline,
            )
    if 'val_cfg' in cfg:
        cfg.train_cfg.val_interval = 1
    runner = Runner.from_cfg(cfg)
    start = WeightsAtStart()
    runner.register_hook(start)
    runner.train()
    assert runner.iter >= 1 and start.weight.isfinite().all()
    # The first rate of the warm-up is 0, the second is not.
    assert torch.equal(start.copy, start.weight) == (runner.iter == 1)


@pytest.mark.parametrize('size, channels', [('base', 1024), ('large', 1536)])
def test_finetuning_at_384_pixels(reference, size, channels):
    name = f'mixmim-{size}_8xb128-amp-coslr-100e_in1k-384px.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'mixmim' / 'benchmarks' / name)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert model.head.fc.in_features == channels
    count = sum(p.numel() for p in model.parameters())
    assert count == reference['parameter_counts'][f'classify_{size}_384']['total']


def test_pretraining_decays_what_the_authors_decay(reference):
    """Weight decay of every parameter, by the optimizer that MMEngine builds."""
    name = 'mixmim_mixmim-base_16xb128-amp-coslr-600e_in1k.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'mixmim' / name)
    cfg.optim_wrapper.type = 'OptimWrapper'  # mixed precision takes a GPU
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
