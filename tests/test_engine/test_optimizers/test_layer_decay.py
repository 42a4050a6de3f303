import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    checkpoint_wrapper,
)
from torch.distributed.fsdp import FullyShardedDataParallel

from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

ROOT = Path(__file__).parents[3]
SHARDING = dict(use_orig_params=True, device_id=torch.device('cpu'))
OPTIMIZER = dict(type='AdamW', lr=2e-3, weight_decay=0.05)


def settings(model, optimizer=OPTIMIZER, **paramwise):
    """Relative learning rate and weight decay of each parameter."""
    init_default_scope('mmmixmim')
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=optimizer,
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise,
        ),
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group['lr'] / optimizer['lr'], group.get('weight_decay'))
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.fixture
def detector_like(make_backbone):
    model = nn.Module()
    model.backbone = make_backbone(out_indices=(0, 1, 2, 3), frozen_stages=0)
    model.neck = nn.Linear(4, 4)
    return model


def test_settings_of_the_base_model_equal_the_authors(reference):
    recipe = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'
    cfg = Config.fromfile(ROOT / 'configs' / 'mixmim' / 'benchmarks' / recipe)
    with torch.device('meta'):
        init_default_scope('mmmixmim')
        model = MODELS.build(cfg.model)
    wrapper = cfg.optim_wrapper
    assert wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    found = settings(model, wrapper.optimizer, **wrapper.paramwise_cfg)
    expected = reference['finetune_base_param_groups']
    theirs = {
        name.replace('head.', 'head.fc.')
        if name.startswith('head')
        else f'backbone.{name}'
        for name in expected
    }
    assert set(found) == theirs
    for name, entry in expected.items():
        ours = name.replace('head.', 'head.fc.')
        scale, decay = found[ours if name.startswith('head') else f'backbone.{name}']
        assert scale == pytest.approx(entry['lr_scale'], rel=1e-9), name
        assert decay == pytest.approx(entry['weight_decay'], abs=1e-12), name


def test_only_the_backbone_is_scaled(detector_like):
    found = settings(detector_like, layer_decay_rate=0.5)
    assert found['neck.weight'] == (1, 0.05) and found['neck.bias'] == (1, 0)
    assert found['backbone.layers.3.blocks.0.mlp.fc1.weight'][0] == 0.5
    assert found['backbone.layers.0.blocks.0.mlp.fc1.weight'][0] == 0.5**5
    # The final norm belongs to the last block, patch merging to the next stage.
    assert found['backbone.norm.weight'][0] == 0.5
    # Pretraining does not train the norms of the earlier feature maps.
    assert found['backbone.norm0.weight'][0] == found['backbone.norm2.weight'][0] == 1
    assert found['backbone.layers.0.downsample.reduction.weight'][0] == 0.5**4
    # Frozen parameters are left out.
    assert not any('patch_embed' in name or 'pos_embed' in name for name in found)


def test_backbone_may_have_any_name_or_none(make_backbone):
    model = nn.Module()
    model.image_encoder = make_backbone()
    model.backbone = nn.Linear(4, 4)
    found = settings(model, layer_decay_rate=0.5)
    assert found['image_encoder.patch_embed.proj.weight'] == (0.5**6, 0.05)
    assert found['backbone.weight'] == (1, 0.05)
    alone = settings(model.image_encoder, layer_decay_rate=0.5)
    assert alone['patch_embed.proj.weight'] == (0.5**6, 0.05)


def test_backbone_without_numbered_layers_is_refused():
    model = MODELS.build(
        dict(type='ImageClassifier', backbone=dict(type='mmpretrain.ResNet', depth=18))
    )
    with pytest.raises(
        UserError, match='ResNet.get_layer_depth does not support this arch'
    ):
        settings(model, layer_decay_rate=0.5)


def test_weight_decay_needs_no_option(detector_like):
    found = settings(detector_like)
    assert found['neck.weight'] == (1, 0.05) and found['neck.bias'] == (1, 0)


def test_custom_keys_multiply_what_the_rules_give(detector_like):
    keys = {'neck': dict(lr_mult=3), 'backbone.norm': dict(decay_mult=0, lr_mult=2)}
    found = settings(detector_like, layer_decay_rate=0.5, custom_keys=keys)
    assert found['neck.weight'] == (pytest.approx(3), 0.05)
    assert found['backbone.norm.weight'] == (1, 0)


@pytest.mark.parametrize('swap', [False, True])
def test_longest_custom_key_applies(detector_like, swap):
    """Neither the order in the config nor the alphabet matters."""
    keys = {
        'backbone': dict(lr_mult=2, decay_mult=2),
        'layers.3': dict(lr_mult=3, decay_mult=3),
        'backbone.layers.3.blocks': dict(lr_mult=5, decay_mult=5),
        'blocks': dict(lr_mult=7, decay_mult=7),
        'attn.qkv.weight': dict(lr_mult=11, decay_mult=11),
    }
    if swap:
        keys = dict(reversed(keys.items()))
    found = settings(detector_like, custom_keys=keys)
    for name, factor in {
        'backbone.layers.3.blocks.0.mlp.fc1.weight': 5,
        'backbone.layers.0.blocks.0.mlp.fc1.weight': 2,
        'backbone.layers.0.blocks.0.attn.qkv.weight': 11,
        'backbone.layers.3.blocks.0.attn.qkv.weight': 5,
        'neck.weight': 1,
    }.items():
        assert found[name] == pytest.approx((factor, 0.05 * factor)), name


def test_custom_keys_need_not_name_every_multiplier(detector_like):
    keys = {'neck': dict(lr_mult=3), 'layers.0': dict(decay_mult=0.5)}
    found = settings(detector_like, custom_keys=keys)
    assert found['neck.weight'] == pytest.approx((3, 0.05))
    name = 'backbone.layers.0.blocks.0.mlp.fc1.weight'
    assert found[name] == pytest.approx((1, 0.025))


def test_groups_carry_their_scale_for_schedules(detector_like):
    init_default_scope('mmmixmim')
    wrapper = build_optim_wrapper(
        detector_like,
        dict(
            optimizer=OPTIMIZER,
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(
                layer_decay_rate=0.5, custom_keys={'neck': dict(lr_mult=3)}
            ),
        ),
    )
    groups = wrapper.optimizer.param_groups
    assert {group['lr_scale'] for group in groups} > {0.5, 1, 3}
    for group in groups:
        assert group['lr'] == pytest.approx(OPTIMIZER['lr'] * group['lr_scale'])


def test_scalars_and_biases_of_any_shape_have_no_weight_decay(detector_like):
    detector_like.neck.scale = nn.Parameter(torch.tensor(1.0))
    detector_like.neck.table = nn.Module()
    detector_like.neck.table.bias = nn.Parameter(torch.zeros(2, 2))
    detector_like.neck.bias_table = nn.Parameter(torch.zeros(2, 2))
    found = settings(detector_like)
    assert found['neck.scale'] == found['neck.table.bias'] == (1, 0)
    assert found['neck.bias_table'] == (1, 0.05)


def test_outermost_backbone_numbers_the_layers(make_backbone):
    """Its method applies, even if a submodule numbers layers too."""

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = make_backbone()

        def get_layer_depth(self, param_name, prefix=''):
            assert param_name.startswith(f'{prefix}trunk.')
            return 0, 3

    model = nn.Module()
    model.backbone = Wrapper()
    found = settings(model, layer_decay_rate=0.5)
    assert {scale for scale, _ in found.values()} == {0.25}


def test_optimizer_without_weight_decay(detector_like):
    found = settings(detector_like, dict(type='SGD', lr=0.1), layer_decay_rate=0.5)
    assert found['neck.weight'][1] == 0  # the default of SGD


def test_constructor_of_mmpretrain_supports_the_backbone(make_backbone):
    from mmpretrain.models import ImageClassifier

    init_default_scope('mmmixmim')
    head = dict(type='LinearClsHead', num_classes=3, in_channels=128)
    model = ImageClassifier(make_backbone(), head=head)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=OPTIMIZER,
            constructor='LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    groups = wrapper.optimizer.param_groups
    assert {group['lr_scale'] for group in groups} == {0.5**i for i in range(7)}
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales = {names[group['params'][0]]: group['lr_scale'] for group in groups}
    assert scales['head.fc.weight'] == 1


@pytest.mark.parametrize(
    'make, paramwise, message',
    [
        (lambda: nn.Linear(2, 2), dict(layer_decay_rate=0.5), 'Linear has no backbone'),
        (
            None,
            dict(layer_decay=0.5),
            'takes layer_decay_rate and custom_keys, got layer_decay: remove',
        ),
    ],
)
def test_refuses_what_it_cannot_do(make, paramwise, message, detector_like):
    with pytest.raises(UserError, match=message):
        settings(make() if make else detector_like, **paramwise)


def test_backbone_inside_a_compiled_module_is_found(detector_like):
    def nested():
        model = nn.Module()
        model.encoder = detector_like
        return model

    wanted = settings(nested(), layer_decay_rate=0.5)
    model = nested()
    model.encoder = torch.compile(detector_like)
    found = settings(model, layer_decay_rate=0.5)
    assert {name.replace('_orig_mod.', ''): found[name] for name in found} == wanted
    assert len({scale for scale, _ in wanted.values()}) > 5


@pytest.mark.parametrize(
    'wrap',
    [
        lambda model: setattr(model, 'backbone', torch.compile(model.backbone)),
        lambda model: model.backbone.layers.__setitem__(
            2, checkpoint_wrapper(model.backbone.layers[2])
        ),
        lambda model: setattr(
            model, 'backbone', FullyShardedDataParallel(model.backbone, **SHARDING)
        ),
    ],
    ids=['compiled', 'checkpointed', 'sharded'],
)
def test_wrapped_backbones_keep_their_layers(detector_like, wrap, process_group):
    wanted = settings(detector_like, layer_decay_rate=0.5)
    wrap(detector_like)
    found = settings(detector_like, layer_decay_rate=0.5)
    assert found.keys() != wanted.keys()
    pattern = r'_(orig_mod|checkpoint_wrapped_module|fsdp_wrapped_module)\.'
    assert {re.sub(pattern, '', name): found[name] for name in found} == wanted


def test_optimizer_without_learning_rate_is_refused(detector_like):
    with pytest.raises(UserError, match=r'set optim_wrapper\.optimizer\.lr'):
        settings(detector_like, dict(type='AdamW', weight_decay=0.05))
