"""Scripts with encoders other than MixMIMTransformer, on the digits."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

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
SWIN = dict(type='MixMIMSwinTransformer', arch=ARCH, **WINDOWS)
ENCODERS = {
    'swin': SWIN,
    'stock swin': SWIN | dict(type='mmpretrain.SwinTransformer'),
    'stock swin v2': dict(
        type='mmpretrain.SwinTransformerV2',
        arch=ARCH | dict(extra_norm_every_n_blocks=0),
        pretrained_window_sizes=[0, 0, 0],
        **WINDOWS,
    ),
    'stock convnext': dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(depths=[1] * 4, channels=[8, 16, 32, 64]),
        stem_patch_size=2,
        in_channels=1,
        gap_before_final_norm=False,
    ),
    'stock hivit': dict(
        type='mmpretrain.HiViT',
        arch=dict(embed_dims=64, depths=[1, 1, 7], num_heads=2),
        img_size=32,
        in_chans=1,
        out_indices=[6],
    ),
}


@pytest.fixture
def write(tmp_path):
    """Write a config with another encoder."""

    def write(base, name):
        backbone = ENCODERS[name] | dict(_delete_=True)
        model = dict(backbone=backbone)
        if base == CLASSIFY:
            model['head'] = dict(in_channels=64)
        path = tmp_path / f'{name.replace(" ", "_")}_{base.stem}.py'
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
    source, target = write(PRETRAIN, 'swin'), write(CLASSIFY, 'stock swin')
    save_model(source, tmp_path / 'swin.pth')
    figures = []
    for checkpoint in (['swin.pth'], ['swin.pth', '--seed', 1], ['--seed', 1]):
        out = ['--out', 'probe.json']
        passed(call('linear_probe.py', target, *checkpoint, *out, cwd=tmp_path))
        figures.append(json.loads((tmp_path / 'probe.json').read_text())['all'])
    assert figures[0] == figures[1] != figures[2]
    assert all(50 < figure < 100 for figure in figures)


@pytest.mark.parametrize('name', ['stock swin v2', 'stock convnext', 'stock hivit'])
def test_probe_of_other_encoders(write, tmp_path, name):
    config = write(CLASSIFY, name)
    save_model(config, tmp_path / 'weights.pth')
    output = passed(call('linear_probe.py', config, 'weights.pth', cwd=tmp_path))
    assert ' all labels per class' in output


def test_checkpoint_of_another_encoder_is_refused(write, tmp_path):
    save_model(write(CLASSIFY, 'stock convnext'), tmp_path / 'convnext.pth')
    result = call(
        'linear_probe.py', write(CLASSIFY, 'swin'), 'convnext.pth', cwd=tmp_path
    )
    assert 'convnext.pth does not fit this MixMIMSwin' in error_line(result)


def test_reconstructions_of_swin_are_drawn(write, tmp_path):
    config = write(PRETRAIN, 'swin')
    save_model(config, tmp_path / 'swin.pth')
    options = ['--num', 2, '--out', 'picture.png']
    passed(
        call('visualize_reconstruction.py', config, 'swin.pth', *options, cwd=tmp_path)
    )
    assert (tmp_path / 'picture.png').stat().st_size > 1000


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
    result = call('get_flops.py', write(CLASSIFY, 'stock swin'), cwd=tmp_path)
    assert 'SwinTransformer does not say which image size' in error_line(result)
    ours = passed(call('get_flops.py', write(CLASSIFY, 'swin'), cwd=tmp_path))
    assert 'one image of 32x32 pixels' in ours
