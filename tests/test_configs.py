"""Every config file loads, builds, and says what its name promises."""

import inspect
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
from mmpretrain.datasets import build_dataset

from mmmixmim.models import MixMIMTransformer
from mmmixmim.models.meta import meta_device
from mmmixmim.registry import MODELS, PARAM_SCHEDULERS

from .conftest import (
    ALL_CONFIGS,
    DENSE_CONFIGS,
    RASTER_CONFIGS,
    ROOT,
)
from .recipes import (
    ADE20K,
    COCO,
    DEMOS,
    FINETUNING,
    LINEAR,
    OTHER_ADE20K,
    OTHER_COCO,
    OTHER_FINETUNING,
    OTHER_PRETRAINING,
    PRETRAINING,
    SIMMIM,
    flatten,
    recipe,
)

BACKBONES = ROOT / 'configs' / '_base_' / 'backbones'
CONFIGS = [
    path
    for path in ALL_CONFIGS
    if path not in DENSE_CONFIGS and path not in RASTER_CONFIGS
]
RECIPES = [path for path in CONFIGS if 'in1k' in path.stem]
# Those that classify.
LABELLED = [
    path for path in CONFIGS if not path.stem.startswith(('mixmim_', 'simmim_'))
]
ALL_FINETUNING = {*FINETUNING, *OTHER_FINETUNING}
ALL_PRETRAINING = {*PRETRAINING, *OTHER_PRETRAINING, *SIMMIM}

# Small values of each class's arguments, all with 128 channels in the last map.
_SMALL = dict(arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]))
_SMALL_V2 = dict(arch=_SMALL['arch'] | dict(extra_norm_every_n_blocks=0))
_SMALL_CONVNEXT = dict(arch=dict(depths=[1, 1, 2, 1], channels=[16, 32, 64, 128]))
# The stock class needs more blocks in the last stage than before it.
_SMALL_HIVIT = dict(arch=dict(embed_dims=128, depths=[1, 1, 7], num_heads=4))
SMALL = {
    'MixMIMTransformer': _SMALL | dict(window_size=None),
    'MixMIMSwinTransformer': _SMALL,
    'SwinTransformer': _SMALL,
    'MixMIMSwinTransformerV2': _SMALL_V2,
    'SwinTransformerV2': _SMALL_V2,
    'MixMIMPyramidVisionTransformer': dict(
        embed_dims=16, num_layers=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]
    ),
    'MixMIMConvNeXt': _SMALL_CONVNEXT,
    'ConvNeXt': _SMALL_CONVNEXT,
    'MixMIMHiViT': _SMALL_HIVIT,
    'HiViT': _SMALL_HIVIT,
}


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    return cfg


def test_names_are_unique():
    assert len({path.name for path in ALL_CONFIGS}) == len(ALL_CONFIGS)


def test_model_builds(cfg):
    with meta_device():
        model = MODELS.build(cfg.model)
    assert any(p.requires_grad for p in model.parameters())


def test_pipelines_build(cfg, image_folder):
    """As mmpretrain's browse_dataset.py does it, in its own scope.

    With pictures of ours in place of a dataset that is not here.
    """
    size = cfg.img_size
    init_default_scope('mmpretrain')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(loader) is None:
            continue
        dataset = cfg[loader].dataset
        if dataset.type != 'Digits':
            dataset = dict(
                _scope_=dataset._scope_,
                type='ImageFolder',
                data_root=image_folder,
                pipeline=dataset.pipeline,
            )
        for sample in build_dataset(dataset):
            assert sample['inputs'].dtype == torch.uint8
            assert sample['inputs'].shape[1:] == (size, size)


def test_loaders_without_workers_keep_none(cfg):
    """mmpretrain's train.py keeps them unless it is told otherwise."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name) or dict(num_workers=1)
        assert loader['num_workers'] or loader.get('persistent_workers') is False


def test_schedule_ends_with_the_training(cfg):
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_epochs


def test_name_tells_batch_epochs_and_precision(cfg):
    name = Path(cfg.filename).stem
    assert f'xb{cfg.train_dataloader.batch_size}-' in name
    assert f'-{cfg.train_cfg.max_epochs}e_' in name
    size = re.search(r'-(\d+)px', name)
    if 'in1k' in name:
        assert cfg.img_size == (int(size[1]) if size else 224)
    assert ('-amp-' in name) == (cfg.optim_wrapper.type == 'AmpOptimWrapper')


@pytest.mark.parametrize('cfg', RECIPES, ids=lambda path: path.stem, indirect=True)
def test_recipes_have_the_total_batch_and_rate_that_they_follow(cfg):
    """Batch, learning rate and minimum rate of the authors, and of MAE's probe."""
    name = Path(cfg.filename).stem
    if '-linear-' in name:
        expected = (16384, 6.4, 0)
    elif name in SIMMIM:
        expected = (2048, 4e-4, 0)
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


@pytest.mark.parametrize(
    'path',
    [path for path in ALL_CONFIGS if path.stem not in DEMOS],
    ids=lambda path: path.stem,
)
def test_recipe_has_exactly_these_values(path):
    """Every entry of every section against ``recipes.py``, which reads no config."""
    cfg = Config.fromfile(path).to_dict()
    expected = recipe(path.stem)
    found = {section: cfg[section] for section in expected}
    if path.stem in COCO or path.stem in OTHER_COCO:  # the heads are mmdet's
        kind = 'cascade-mask-rcnn' if 'cascade' in path.stem else 'mask-rcnn'
        base = f"_base_ = 'mmdet::_base_/models/{kind}_r50_fpn.py'"
        original = Config.fromstring(base, '.py').to_dict()['model']
        expected['model'] = original | expected['model']
    assert flatten(found) == flatten(expected)


@pytest.mark.parametrize(
    'path',
    [path for path in ALL_CONFIGS if path.stem not in DEMOS],
    ids=lambda path: path.stem,
)
def test_recipe_sets_nothing_else_that_a_runner_reads(path):
    read = set(inspect.signature(Runner.__init__).parameters)
    read |= {'auto_scale_lr', 'tta_model', 'runner_type'}
    logging = {'visualizer', 'log_processor', 'log_level'}
    start = {'load_from', 'resume'}
    runtime = {'default_hooks', 'env_cfg'} if path in DENSE_CONFIGS else set()
    found = read & Config.fromfile(path).keys()
    assert found <= recipe(path.stem).keys() | logging | start | runtime


@pytest.mark.parametrize('name', DEMOS)
def test_small_config_has_these_values(name):
    (path,) = [path for path in ALL_CONFIGS if path.stem == name]
    cfg = Config.fromfile(path).to_dict()
    found = {}
    for key in DEMOS[name]:
        node = cfg
        for part in key.split('.'):
            node = node[int(part) if part.isdigit() else part]
        found[key] = node
    assert found == DEMOS[name]


def test_every_config_is_in_a_table():
    recipes = ALL_PRETRAINING | ALL_FINETUNING
    recipes |= {*LINEAR, *COCO, *OTHER_COCO, *ADE20K, *OTHER_ADE20K, *DEMOS}
    assert {path.stem for path in ALL_CONFIGS} == recipes


@pytest.mark.parametrize('cfg', LABELLED, ids=lambda path: path.stem, indirect=True)
def test_classes_are_those_of_the_dataset(cfg):
    assert cfg.model.head.num_classes == cfg.num_classes
    assert cfg.model.data_preprocessor.num_classes == cfg.num_classes


def test_classes_stand_in_one_file_for_each_dataset():
    """Recipes take the number from there, as they take channels and sizes."""
    number = re.compile(r'num_classes\s*=\s*\d')
    files = (ROOT / 'configs').rglob('*.py')
    found = {path.name: len(number.findall(path.read_text())) for path in files}
    assert {name: count for name, count in found.items() if count} == dict.fromkeys(
        [
            'ade20k.py',
            'digits_pretrain.py',
            'folder_finetune.py',
            'in1k.py',
            'inat2018.py',
            'inat2019.py',
            'places205.py',
            'places365.py',
        ],
        1,
    )


def test_no_pipeline_is_patched_by_index():
    for path in (ROOT / 'configs').rglob('*.py'):
        assert not re.search(r'pipeline\[\d', path.read_text()), path


@pytest.mark.parametrize('size', ['base', 'large', 'huge'])
def test_channels_are_those_of_the_encoder(size):
    """The numbers that heads and necks are built with, against the backbone."""
    channels = Config.fromfile(BACKBONES / 'mixmim.py').channels[size]
    with torch.device('meta'):
        backbone = MixMIMTransformer(size)
    assert channels == stage_channels(backbone)


def test_channels_of_other_encoders():
    """Those that heads and necks are built with, against the classes."""
    types = {
        'swin_base': 'MixMIMSwinTransformer',
        'swin_tiny': 'MixMIMSwinTransformer',
        'swin_v2_base': 'MixMIMSwinTransformerV2',
        'pvt_small': 'MixMIMPyramidVisionTransformer',
        'convnext_base': 'MixMIMConvNeXt',
        'convnext_v2_base': 'MixMIMConvNeXt',
        'hivit_base': 'MixMIMHiViT',
    }
    found, expected = {}, {}
    for path in BACKBONES.glob('*.py'):
        cfg = Config.fromfile(path)
        if 'stock_encoder' in cfg:
            with meta_device():
                encoder = MODELS.build(dict(type=types[path.stem], **cfg.stock_encoder))
            found[path.stem] = encoder.out_channels
            expected[path.stem] = cfg.stock_channels
    assert found == expected and found.keys() == types.keys()


def test_channels_of_the_small_encoders():
    tiny = Config.fromfile(BACKBONES / 'mixmim_tiny.py')
    assert tiny.tiny_channels == stage_channels(MixMIMTransformer(tiny.tiny_arch))
    shapes = Config.fromfile(BACKBONES / 'mixmim_shapes.py')
    assert shapes.channels == stage_channels(MixMIMTransformer(**shapes.encoder))


def stage_channels(backbone):
    return [stage.blocks[0].attn.qkv.in_features for stage in backbone.layers]


@pytest.mark.parametrize(
    'cfg',
    [path for path in CONFIGS if path.stem in PRETRAINING and 'tiny' not in path.stem],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_decoder_has_the_authors_size(cfg):
    """Which the config leaves to the defaults."""
    with torch.device('meta'):
        decoder = MODELS.build(cfg.model).neck
    blocks = decoder.decoder_blocks
    assert (len(blocks), blocks[0].attn.num_heads) == (8, 16)
    assert blocks[0].attn.qkv.in_features == 512


@pytest.mark.parametrize('cfg', LABELLED, ids=lambda path: path.stem, indirect=True)
def test_classifier_starts_with_this_deviation(cfg):
    """Of the weights after ``init_weights``: 2e-5 as the authors, 0.01 as MAE."""
    head = MODELS.build(cfg.model.head)
    head.init_weights()
    name = Path(cfg.filename).stem
    expected = 2e-5 if name in ALL_FINETUNING else 0.01
    assert head.fc.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert abs(head.fc.weight.mean().item()) < expected / 10
    assert not head.fc.bias.any()


@pytest.mark.parametrize(
    'cfg',
    [path for path in CONFIGS if path.stem in ALL_FINETUNING],
    ids=lambda path: path.stem,
    indirect=True,
)
def test_fill_is_the_mean_of_the_preprocessor_in_bgr(cfg):
    """Images are BGR in the pipeline, mean and deviation of the model RGB."""
    pre = cfg.model.data_preprocessor
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert pre.to_rgb
    assert steps['RandomErasing'].fill_color == pre.mean[::-1]
    assert steps['RandomErasing'].fill_std == pre.std[::-1]
    fill = steps['RandAugment'].hparams.pad_val
    assert fill == [round(value) for value in pre.mean[::-1]]


@pytest.mark.parametrize('path', ALL_CONFIGS, ids=lambda path: path.stem)
def test_documented_options_reach_what_a_run_reads(path):
    """They name entries of the merged config, so variables must not hide these."""
    cfg = Config.fromfile(path)
    options = {'train_dataloader.dataset.data_root': 'elsewhere'}
    if path.stem in ALL_FINETUNING or path.stem in LINEAR:
        options |= {
            'model.head.num_classes': 7,
            'model.data_preprocessor.num_classes': 7,
            'val_dataloader.dataset.data_root': 'val',
            'test_dataloader.dataset.data_root': 'test',
            'model.backbone.init_cfg.checkpoint': 'weights.pth',
        }
    elif path.stem in ALL_PRETRAINING:
        options['default_hooks.unreadable_images.max_share'] = 0.5
    before = flatten(cfg.to_dict())
    cfg.merge_from_dict(options)
    after = flatten(cfg.to_dict())
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == set(options)
    assert {key: after[key] for key in options} == options


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
    """One real epoch of a small model, in float32, on a few pictures."""
    digits = cfg.train_dataloader.dataset.type == 'Digits'
    if not digits:
        cfg.model.backbone.update(init_cfg=None, **SMALL[cfg.model.backbone.type])
        if cfg.model.type == 'MixMIM':
            if 'encoder_stride' in cfg.model.neck:
                cfg.model.neck.in_channels = 128
            else:
                cfg.model.neck.update(decoder_depth=1, decoder_embed_dims=64)
        else:
            cfg.model.head.in_channels = 128
            if cfg.model.backbone.get('frozen_stages'):
                cfg.model.neck[1].input_features = 128
            assert cfg.custom_hooks == [dict(type='ClassCheckHook')]
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
