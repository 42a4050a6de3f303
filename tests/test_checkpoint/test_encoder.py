"""The encoder out of checkpoints of every layout and kind of model."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch import nn

from mmmixmim.checkpoint import (
    convert_state_dict,
    encoder_weights,
    load_encoder,
    write_weights,
)

LAYOUTS = ['authors', 'mmpretrain', 'mmmixmim']


def assert_loaded(backbone, source):
    for name, value in source.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name


@pytest.fixture
def source(make_mixmim):
    model = make_mixmim()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def save(source, tmp_path):
    """Writer of the source in a layout, as a whole model or its encoder alone."""

    def write(layout, whole=True):
        state = convert_state_dict(source.state_dict(), layout)
        if not whole:
            part = 'backbone.' if layout != 'authors' else ''
            state = {
                name.removeprefix(part): value
                for name, value in state.items()
                if name.startswith(part)
                and not name.startswith(('decoder_', 'mask_token'))
            }
        path = tmp_path / f'{layout}.pth'
        write_weights(state, path, layout)
        return path

    return write


@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'encoder'])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
def test_pretrained_init(make_backbone, source, save, layout, whole, prefix):
    init_cfg = dict(type='Pretrained', checkpoint=str(save(layout, whole)))
    if prefix:
        init_cfg['prefix'] = prefix
    backbone = make_backbone(init_cfg=init_cfg)
    backbone.init_weights()
    assert_loaded(backbone, source.backbone)
    assert backbone.init_cfg == init_cfg


@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'encoder'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_load_checkpoint_into_the_backbone(make_backbone, source, save, layout, whole):
    backbone = make_backbone()
    load_checkpoint(backbone, str(save(layout, whole)), strict=True)
    assert_loaded(backbone, source.backbone)


def test_other_entries_of_init_cfg_come_first(make_backbone, source, save):
    constant = dict(type='Constant', layer='LayerNorm', val=7.0)
    pretrained = dict(type='Pretrained', checkpoint=str(save('authors')))
    backbone = make_backbone(init_cfg=[pretrained, constant], out_indices=(0, 3))
    backbone.init_weights()
    assert torch.equal(backbone.norm.weight, source.backbone.norm.weight)
    assert (backbone.norm0.weight == 7).all()


def test_norms_of_dense_maps_may_be_new_and_are_logged(make_backbone, save, tmp_path):
    log = tmp_path / 'log.txt'
    MMLogger.get_instance('norms', log_file=str(log))
    backbone = make_backbone(out_indices=(0, 1, 2, 3))
    load_encoder(backbone, save('mmpretrain'))
    assert 'has no norm0.weight, norm0.bias, norm1.weight' in log.read_text()


def test_norms_of_dense_maps_are_loaded(make_backbone, tmp_path):
    dense = make_backbone(out_indices=(0, 1, 2, 3))
    nn.init.normal_(dense.norm1.weight)
    state = {f'backbone.{name}': value for name, value in dense.state_dict().items()}
    write_weights(state | {'rpn.bias': torch.ones(1)}, tmp_path / 'd.pth', 'mmmixmim')
    backbone = make_backbone(out_indices=(1, 3))
    load_encoder(backbone, tmp_path / 'd.pth')
    assert torch.equal(backbone.norm1.weight, dense.norm1.weight)


def test_tables_and_embeddings_are_resized(make_backbone, source, save):
    backbone = make_backbone(img_size=(96, 160), window_size=[12, (12, 10), 6, (3, 5)])
    load_encoder(backbone, save('mmpretrain'))
    wanted = make_backbone(img_size=(96, 160), window_size=[12, (12, 10), 6, (3, 5)])
    wanted.load_state_dict(source.backbone.state_dict())
    assert_loaded(backbone, wanted)
    assert not torch.equal(
        backbone.layers[3].blocks[0].attn.relative_position_bias_table,
        make_backbone(img_size=(96, 160), window_size=[12, (12, 10), 6, (3, 5)])
        .layers[3]
        .blocks[0]
        .attn.relative_position_bias_table,
    )


def test_windows_that_are_not_square_keep_their_sides(make_mixmim, tmp_path):
    """From a file; (2, 8) has as many rows of the table as no square has."""
    windows = dict(window_size=[(2, 8), (8, 2), 8, 4])
    source = make_mixmim(backbone=windows)
    write_weights(source.state_dict(), tmp_path / 'w.pth', 'mmmixmim')
    other = make_mixmim(backbone=dict(window_size=[(8, 2), (2, 8), 8, 4])).backbone
    load_encoder(other, tmp_path / 'w.pth')
    wanted = make_mixmim(backbone=dict(window_size=[(8, 2), (2, 8), 8, 4])).backbone
    wanted.load_state_dict(source.backbone.state_dict())
    assert_loaded(other, wanted)


def test_encoder_is_chosen_by_prefix(make_backbone):
    first, second = make_backbone().state_dict(), make_backbone().state_dict()
    state = {f'student.{name}': value for name, value in first.items()}
    state |= {f'teacher.net.{name}': value for name, value in second.items()}
    picked = encoder_weights(state, 'teacher.net')
    assert picked.keys() == second.keys()
    assert all(picked[name] is value for name, value in second.items())
    with pytest.raises(ValueError, match="encoders at 'student.', 'teacher.net.', not"):
        encoder_weights(state)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(arch=dict(depths=[1, 1, 1, 1])), 'unknown layers.2.blocks.1.* first of'),
        (dict(arch=dict(depths=[1, 1, 3, 1])), 'it lacks layers.2.blocks.2.* first of'),
        (dict(arch=dict(embed_dims=32)), r'another arch.*\(1, 256, 16\) there'),
        (
            dict(in_channels=4),
            r'in_channels: patch_embed.proj.weight .*\(16, 3, 4, 4\)',
        ),
    ],
)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_what_does_not_fit_is_refused(
    make_backbone, tiny_arch, save, layout, change, message
):
    change = change | dict(arch=tiny_arch | change.get('arch', {}))
    with pytest.raises(ValueError, match=f'{layout}.pth does not fit.*{message}'):
        load_encoder(make_backbone(**change), save(layout))


def test_a_file_without_an_encoder_is_refused(make_backbone, tmp_path):
    torch.save({'conv1.weight': torch.ones(1)}, tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match='no MixMIM encoder.*first entry is conv1'):
        load_encoder(make_backbone(), tmp_path / 'resnet.pth')


def test_reads_what_a_server_has(
    make_backbone, source, save, tmp_path, monkeypatch, server
):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    path = save('authors')
    backbone = make_backbone()
    load_encoder(backbone, server(path.parent) + path.name)
    assert_loaded(backbone, source.backbone)
    with pytest.raises(FileNotFoundError, match='nothing.pth cannot be fetched.*404'):
        load_encoder(backbone, server(path.parent) + 'nothing.pth')
