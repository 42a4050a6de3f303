"""Scripts with encoders other than MixMIMTransformer, on the digits."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from mmmixmim.registry import MODELS

from ..scripts import CLASSIFY, PRETRAIN, call, error_line, passed

ARCH = dict(embed_dims=16, depths=[1, 1, 2], num_heads=[1, 2, 4])
WINDOWS = dict(
    img_size=32,
    patch_size=2,
    in_channels=1,
    window_size=4,
    out_indices=(2,),
    pad_small_map=True,
)
CONVNEXT = dict(
    arch=dict(depths=[1] * 4, channels=[8, 16, 32, 64]),
    stem_patch_size=2,
    in_channels=1,
    gap_before_final_norm=False,
)
HIVIT = dict(
    arch=dict(embed_dims=64, depths=[1, 1, 7], num_heads=2), img_size=32, in_chans=1
)
PVT = dict(
    type='MixMIMPyramidVisionTransformer',
    pretrain_img_size=32,
    in_channels=1,
    embed_dims=16,
    num_stages=3,
    num_layers=[1, 1, 1],
    num_heads=[1, 2, 4],
    patch_sizes=[2, 2, 2],
    strides=[2, 2, 2],
    paddings=[0, 0, 0],
    sr_ratios=[4, 2, 1],
    mlp_ratios=[2, 2, 2],
)
# The type that pretraining takes, then the stock class. mmdet's PVT gives a list of
# maps, which mmpretrain's classifiers don't take.
ENCODERS = {
    'swin': (
        dict(type='MixMIMSwinTransformer', arch=ARCH, **WINDOWS),
        dict(type='mmpretrain.SwinTransformer', arch=ARCH, **WINDOWS),
    ),
    'swin_v2': tuple(
        dict(
            type=kind,
            arch=ARCH | dict(extra_norm_every_n_blocks=0),
            pretrained_window_sizes=[0, 0, 0],
            **WINDOWS,
        )
        for kind in ('MixMIMSwinTransformerV2', 'mmpretrain.SwinTransformerV2')
    ),
    'convnext': (
        dict(type='MixMIMConvNeXt', img_size=32, **CONVNEXT),
        dict(type='mmpretrain.ConvNeXt', **CONVNEXT),
    ),
    'hivit': (
        dict(type='MixMIMHiViT', **HIVIT),
        dict(type='mmpretrain.HiViT', out_indices=[6], **HIVIT),
    ),
    'pvt': (PVT, PVT),
}


@pytest.fixture
def write(tmp_path):
    """Write a pretraining config with an encoder, or a classifier with a stock one."""

    def write(base, name, stock=True):
        backbone = ENCODERS[name][base == CLASSIFY and stock] | dict(_delete_=True)
        model = dict(backbone=backbone)
        if base == CLASSIFY:
            model['head'] = dict(in_channels=64)
        path = tmp_path / f'{name}_{stock}_{base.stem}.py'
        path.write_text(f'_base_ = {str(base)!r}\nmodel = {model!r}\n')
        return path

    return write


def save_model(config, path):
    """Save a model with random weights as a runner does, and return it."""
    init_default_scope('mmmixmim')
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return model


def test_probe_starts_from_what_pretraining_saved(write, tmp_path):
    source, target = write(PRETRAIN, 'swin'), write(CLASSIFY, 'swin')
    save_model(source, tmp_path / 'swin.pth')
    figures = []
    for checkpoint in (['swin.pth'], ['swin.pth', '--seed', 1], ['--seed', 1]):
        out = ['--out', 'probe.json']
        passed(call('linear_probe.py', target, *checkpoint, *out, cwd=tmp_path))
        figures.append(json.loads((tmp_path / 'probe.json').read_text())['all'])
    assert figures[0] == figures[1] != figures[2]
    assert all(50 < figure < 100 for figure in figures)


def test_an_untrained_stock_encoder_is_the_one_that_training_starts_from(
    write, tmp_path
):
    """mmpretrain draws the weights of ConvNeXt in ``init_weights``."""
    config = write(CLASSIFY, 'convnext')
    init_default_scope('mmmixmim')
    set_random_seed(3)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    torch.save(model.state_dict(), tmp_path / 'start.pth')
    figures = []
    for start in (['start.pth'], ['--seed', 3]):
        out = ['--out', 'probe.json']
        result = call('linear_probe.py', config, *start, *out, cwd=tmp_path)
        assert len(passed(result).splitlines()) < 9
        figures.append(json.loads((tmp_path / 'probe.json').read_text()))
    assert figures[0] == figures[1]


@pytest.mark.parametrize('name', ['swin_v2', 'convnext', 'hivit', 'pvt'])
def test_probe_and_pictures_of_other_encoders(write, tmp_path, name):
    """The probe's classifier has the stock class, except for PVT."""
    source = write(PRETRAIN, name)
    save_model(source, tmp_path / 'weights.pth')
    config = write(CLASSIFY, name)
    output = passed(call('linear_probe.py', config, 'weights.pth', cwd=tmp_path))
    assert ' all labels per class' in output
    options = ['--num', 2, '--out', 'picture.png']
    passed(
        call(
            'visualize_reconstruction.py', source, 'weights.pth', *options, cwd=tmp_path
        )
    )
    assert (tmp_path / 'picture.png').stat().st_size > 1000


def test_checkpoint_of_another_encoder_is_refused(write, tmp_path):
    save_model(write(CLASSIFY, 'convnext'), tmp_path / 'convnext.pth')
    config = write(CLASSIFY, 'swin', stock=False)
    result = call('linear_probe.py', config, 'convnext.pth', cwd=tmp_path)
    assert 'convnext.pth does not fit this MixMIMSwin' in error_line(result)


@pytest.mark.parametrize(
    'base, name', [(PRETRAIN, 'swin'), *((CLASSIFY, name) for name in ENCODERS)]
)
def test_complexity(write, tmp_path, base, name):
    config = write(base, name)
    output = passed(call('get_flops.py', config, '--shape', 32, cwd=tmp_path))
    total, parameters, macs = output.splitlines()[-1].split()
    model = save_model(config, tmp_path / 'unused.pth')
    assert parameters == f'{sum(each.numel() for each in model.parameters()):,}'
    assert total == 'total' and float(macs) > 0


def test_complexity_needs_a_size(write, tmp_path):
    result = call('get_flops.py', write(CLASSIFY, 'swin'), cwd=tmp_path)
    assert 'SwinTransformer does not say which image size' in error_line(result)
    ours = write(CLASSIFY, 'swin', stock=False)
    assert 'one image of 32x32 pixels' in passed(
        call('get_flops.py', ours, cwd=tmp_path)
    )
