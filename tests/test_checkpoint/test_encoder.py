"""The encoder out of checkpoints of every format and kind of model."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch import nn

from mmmixmim.checkpoint import (
    load_encoder,
    load_whole,
    split_encoder,
    write_weights,
)
from mmmixmim.checkpoint.files import unwrap
from mmmixmim.conversion import convert_state_dict

FORMATS = ['authors', 'mmpretrain', 'mmmixmim']


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
    """Writer of the source in a format, as a whole model or its encoder alone."""

    def write(format, whole=True):
        state = convert_state_dict(source.state_dict(), format)
        if not whole:
            part = 'backbone.' if format != 'authors' else ''
            state = {
                name.removeprefix(part): value
                for name, value in state.items()
                if name.startswith(part)
                and not name.startswith(('decoder_', 'mask_token'))
            }
        path = tmp_path / f'{format}.pth'
        write_weights(state, path, format)
        return path

    return write


@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'encoder'])
@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('prefix', [None, 'backbone', 'backbone.'])
def test_pretrained_init(make_backbone, source, save, format, whole, prefix):
    init_cfg = dict(type='Pretrained', checkpoint=str(save(format, whole)))
    if prefix:
        init_cfg['prefix'] = prefix
    backbone = make_backbone(init_cfg=init_cfg)
    backbone.init_weights()
    assert_loaded(backbone, source.backbone)
    assert backbone.init_cfg == init_cfg


@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'encoder'])
@pytest.mark.parametrize('format', FORMATS)
def test_load_checkpoint_into_the_backbone(make_backbone, source, save, format, whole):
    backbone = make_backbone()
    load_checkpoint(backbone, str(save(format, whole)), strict=True)
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
    assert 'not in the file, new: norm0.weight, norm0.bias, norm1' in log.read_text()


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
    windows = dict(img_size=128, window_size=[(2, 8), (8, 2), 8, 4])
    source = make_mixmim(backbone=windows)
    write_weights(source.state_dict(), tmp_path / 'w.pth', 'mmmixmim')
    other = make_mixmim(
        backbone=dict(img_size=128, window_size=[(8, 2), (2, 8), 8, 4])
    ).backbone
    load_encoder(other, tmp_path / 'w.pth')
    wanted = make_mixmim(
        backbone=dict(img_size=128, window_size=[(8, 2), (2, 8), 8, 4])
    ).backbone
    wanted.load_state_dict(source.backbone.state_dict())
    assert_loaded(other, wanted)


WINDOWS = dict(img_size=128, window_size=[(2, 14), (8, 2), (2, 8), (2, 2)])


@pytest.mark.parametrize('load', ['torch', 'mmengine', 'part'])
def test_windows_that_are_not_square_stay_as_they_are(make_mixmim, tmp_path, load):
    """A table of a window of 2x14 has 81 rows, as one of 5x5."""
    source, target = make_mixmim(backbone=WINDOWS), make_mixmim(backbone=WINDOWS)
    write_weights(source.state_dict(), tmp_path / 'w.pth', 'mmmixmim')
    if load == 'torch':
        target.backbone.load_state_dict(source.state_dict())
    elif load == 'mmengine':
        load_checkpoint(target.backbone, str(tmp_path / 'w.pth'))
    else:
        part = {f'module.{name}': v for name, v in source.state_dict().items()}
        torch.save(dict(state_dict=part), tmp_path / 'm.pth')
        load_checkpoint(target, str(tmp_path / 'm.pth'))
    assert_loaded(target.backbone, source.backbone)


@pytest.mark.parametrize('format', FORMATS)
@pytest.mark.parametrize('wrapper', ['module.', '_orig_mod.', 'module._orig_mod.'])
def test_prefixes_of_wrappers(
    make_backbone, make_mixmim, source, save, format, wrapper
):
    path = save(format)
    state = torch.load(path, weights_only=True)
    key = 'model' if format == 'authors' else 'state_dict'
    state = {key: {f'{wrapper}{name}': v for name, v in state[key].items()}}
    torch.save(state, path)
    backbone, whole = make_backbone(), make_mixmim()
    load_encoder(backbone, path)
    load_whole(whole, path)
    assert_loaded(backbone, source.backbone)
    assert_loaded(whole, source)


def test_what_a_bare_backbone_leaves_out_is_logged(make_backbone, source, tmp_path):
    log = tmp_path / 'log.txt'
    MMLogger.get_instance('left-out', log_file=str(log))
    make_backbone().load_state_dict(source.state_dict(), strict=True)
    assert 'Only the encoder is loaded, not: neck.mask_token' in log.read_text()


def test_final_norm_must_be_there(make_backbone, tmp_path):
    state = make_backbone().state_dict()
    del state['norm.weight']
    write_weights(state, tmp_path / 'n.pth', 'mmmixmim')
    with pytest.raises(ValueError, match='it lacks norm.weight'):
        load_encoder(make_backbone(), tmp_path / 'n.pth')


@pytest.mark.parametrize('format', FORMATS)
def test_without_biases_of_queries_keys_and_values(make_mixmim, tmp_path, format):
    source, target = (make_mixmim(backbone=dict(qkv_bias=False)) for _ in range(2))
    state = convert_state_dict(source.state_dict(), format)
    write_weights(state, tmp_path / 'q.pth', format)
    load_whole(target, tmp_path / 'q.pth')
    assert_loaded(target, source)


def test_encoder_is_chosen_by_prefix(make_backbone):
    first, second = make_backbone().state_dict(), make_backbone().state_dict()
    state = {f'student.{name}': value for name, value in first.items()}
    state |= {f'teacher.net.{name}': value for name, value in second.items()}
    picked, _ = split_encoder(state, 'teacher.net')
    assert picked.keys() == second.keys()
    assert all(picked[name] is value for name, value in second.items())
    with pytest.raises(ValueError, match="encoders at 'student.', 'teacher.net.', not"):
        split_encoder(state)


def test_prefix_of_no_encoder_is_refused(make_backbone):
    state = {f'student.{name}': v for name, v in make_backbone().state_dict().items()}
    assert len(split_encoder(state)[0]) == len(split_encoder(state, 'student')[0])
    with pytest.raises(ValueError, match="encoders at 'student.', not at 'teacher.'"):
        split_encoder(state, 'teacher')


@pytest.mark.parametrize('format', FORMATS)
def test_whole_models_below_a_prefix(make_backbone, source, save, tmp_path, format):
    state = torch.load(save(format), weights_only=True)
    (key,) = state
    below = {f'student.{name}': v for name, v in state[key].items()}
    torch.save({key: below | {'step': torch.ones(1)}}, tmp_path / 's.pth')
    log = tmp_path / 'log.txt'
    MMLogger.get_instance(f'below-{format}', log_file=str(log))
    backbone = make_backbone()
    prefix = 'student' if format == 'authors' else 'student.backbone'
    load_encoder(backbone, tmp_path / 's.pth', prefix)
    assert_loaded(backbone, source.backbone)
    named = log.read_text().split('only the encoder is loaded, not: ')[1]
    beside = set(named.split('\n')[0].rstrip('.').split(', '))
    encoder = len(source.backbone.state_dict())
    assert len(beside) == len(source.state_dict()) - encoder + 1 and 'step' in beside


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
@pytest.mark.parametrize('format', FORMATS)
def test_what_does_not_fit_is_refused(
    make_backbone, tiny_arch, save, format, change, message
):
    change = change | dict(arch=tiny_arch | change.get('arch', {}))
    with pytest.raises(ValueError, match=f'{format}.pth does not fit.*{message}'):
        load_encoder(make_backbone(**change), save(format))


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
    # Other files of the same name, and a page in place of a file.
    (path.parent / 'other').mkdir()
    other = make_backbone()
    write_weights(other.state_dict(), path.parent / 'other' / path.name, 'authors')
    load_encoder(backbone, f'{server(path.parent)}other/{path.name}')
    assert_loaded(backbone, other)
    (path.parent / 'page').write_text('<html></html>')
    address = server(path.parent) + 'page'
    with pytest.raises(ValueError, match='page is '):
        load_encoder(backbone, address)
    write_weights(other.state_dict(), path.parent / 'page', 'authors')
    load_encoder(backbone, address)
    with pytest.raises(FileNotFoundError, match='nothing.pth cannot be fetched.*404'):
        load_encoder(backbone, server(path.parent) + 'nothing.pth')


def test_windows_of_a_whole_model_reach_a_bare_backbone(make_mixmim):
    """Tables of 2x14 and 8x2 windows have 81 and 45 rows: only the sides tell."""
    source = make_mixmim(backbone=WINDOWS)
    other = dict(img_size=128, window_size=[(8, 2), (2, 8), (8, 2), (2, 2)])
    found, wanted = (make_mixmim(backbone=other).backbone for _ in range(2))
    found.load_state_dict(source.state_dict())
    wanted.load_state_dict(source.backbone.state_dict())
    assert_loaded(found, wanted)
    table = 'layers.0.blocks.0.attn.relative_position_bias_table'
    assert len(found.state_dict()[table]) == 15 * 3


def test_prefixes_that_only_some_names_have_stay():
    state = {'module.a.weight': torch.ones(1), 'b.weight': torch.ones(1)}
    assert unwrap(state) is state
    both = {f'module.{name}': value for name, value in state.items()}
    assert list(unwrap(both)) == list(state)
