"""Checkpoints of every format in real models of mmpretrain, mmdet and mmseg."""

import argparse
import logging

import pytest
import torch
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint

from mmmixmim.checkpoint import translate_checkpoint, write_weights
from mmmixmim.conversion import convert_state_dict

FORMATS = ['authors', 'mmpretrain', 'mmmixmim']
BACKBONE = dict(
    type='mmmixmim.MixMIMTransformer',
    arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
    img_size=64,
    window_size=[8, 8, 4, 2],
)
DENSE = BACKBONE | dict(out_indices=(0, 1, 2, 3))
CHANNELS = [16, 32, 64, 128]


def classifier():
    from mmpretrain.registry import MODELS

    init_default_scope('mmpretrain')
    head = dict(type='LinearClsHead', num_classes=10, in_channels=128)
    neck = dict(type='GlobalAveragePooling')
    return MODELS.build(
        dict(type='ImageClassifier', backbone=BACKBONE, neck=neck, head=head)
    )


def detector():
    from mmdet.registry import MODELS

    cfg = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone = DENSE
    cfg.neck.in_channels = CHANNELS
    init_default_scope('mmdet')
    return MODELS.build(cfg)


def segmentor():
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    head = dict(
        type='UPerHead',
        in_channels=CHANNELS,
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=5,
    )
    return MODELS.build(dict(type='EncoderDecoder', backbone=DENSE, decode_head=head))


@pytest.fixture
def pretrained(make_mixmim):
    model = make_mixmim()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def save(pretrained, tmp_path):
    def write(format):
        path = tmp_path / f'{format}.pth'
        state = convert_state_dict(pretrained.state_dict(), format)
        write_weights(state, path, format)
        return str(path)

    return write


def assert_encoder(model, pretrained):
    own = model.backbone.state_dict()
    for name, value in pretrained.backbone.state_dict().items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize('build', [classifier, detector, segmentor])
@pytest.mark.parametrize('format', FORMATS)
def test_load_checkpoint(build, format, pretrained, save, tmp_path):
    """The encoder is loaded, and all else listed in a warning."""
    model = build()
    log = tmp_path / 'log.txt'
    logger = MMLogger(f'{build.__name__}-{format}', log_file=str(log))
    load_checkpoint(model, save(format), logger=logger)
    assert_encoder(model, pretrained)
    (warning,) = log.read_text().split('WARNING')[1:]
    assert 'neck.decoder_pred.weight' in warning
    assert 'head' in warning and 'backbone.layers' not in warning


@pytest.mark.parametrize('build', [classifier, detector, segmentor])
@pytest.mark.parametrize('format', FORMATS)
def test_pretrained_backbone(build, format, pretrained, save):
    model = build()
    model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=save(format), prefix='backbone.'
    )
    model.init_weights()
    assert_encoder(model, pretrained)


@pytest.mark.parametrize('format', FORMATS)
def test_pretraining_model_is_loaded_whole(make_mixmim, format, pretrained, save):
    model = make_mixmim()
    load_checkpoint(model, save(format), strict=True)
    for name, value in pretrained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize('format', FORMATS)
def test_classifier_is_loaded_whole(format, save, tmp_path):
    source, model = classifier(), classifier()
    state = convert_state_dict(source.state_dict(), format)
    write_weights(state, tmp_path / 'c.pth', format)
    load_checkpoint(model, str(tmp_path / 'c.pth'), strict=True)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize('format', FORMATS)
def test_load_from_of_a_runner(format, pretrained, save, tmp_path):
    model = classifier()
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        load_from=save(format),
        log_level=logging.ERROR,
    )
    runner.load_or_resume()
    assert_encoder(model, pretrained)


def test_what_the_authors_save_beside_the_weights_stays(pretrained, tmp_path):
    state = convert_state_dict(pretrained.state_dict(), 'authors')
    content = dict(model=state, epoch=3, args=argparse.Namespace(lr=0.1))
    torch.save(content, tmp_path / 'authors.pth')
    model = classifier()
    checkpoint = load_checkpoint(model, str(tmp_path / 'authors.pth'))
    assert_encoder(model, pretrained)
    assert checkpoint['epoch'] == 3 and checkpoint['args'].lr == 0.1
    assert 'model' not in checkpoint


@pytest.mark.parametrize('key', ['model', 'state_dict'])
@pytest.mark.parametrize('change', ['extra', 'lacking'])
def test_incomplete_files_of_the_authors_are_named(
    make_mixmim, pretrained, tmp_path, key, change
):
    """All else is loaded, and MMEngine lists the entry."""
    state = convert_state_dict(pretrained.state_dict(), 'authors')
    if change == 'extra':
        state['fc_norm.weight'] = torch.zeros(1)
    else:
        del state['decoder_pred.bias']
    torch.save({key: state}, tmp_path / 'a.pth')
    log = tmp_path / 'log.txt'
    logger = MMLogger(f'{change}-{key}', log_file=str(log))
    model = make_mixmim()
    load_checkpoint(model, str(tmp_path / 'a.pth'), logger=logger)
    assert_encoder(model, pretrained)
    entry = 'backbone.fc_norm' if change == 'extra' else 'neck.decoder_pred.bias'
    assert entry in log.read_text()


@pytest.mark.parametrize(
    'content',
    [
        {'state_dict': {'backbone.conv1.weight': torch.ones(1)}, 'meta': {}},
        {'model': {'patch_embed.proj.weight': torch.ones(1)}},
        {'model': {'absolute_pos_embed': torch.ones(1), 'layers.0.x': torch.ones(1)}},
        {'absolute_pos_embed': torch.ones(1)},
        {'model': 'a name', 'epoch': 3},
    ],
)
def test_other_checkpoints_stay_as_they_are(content):
    assert translate_checkpoint(content) is content


@pytest.mark.parametrize('format', FORMATS)
def test_prefix_that_is_taken_off(make_mixmim, pretrained, save, format):
    """By ``revise_keys``, from a checkpoint that holds more."""
    target = make_mixmim()
    path = save(format)
    state = torch.load(path, weights_only=True)
    (key,) = state
    below = {f'student.{name}': value for name, value in state[key].items()}
    torch.save({key: below | {'step': torch.ones(1)}}, path)
    load_checkpoint(target, path, revise_keys=[(r'^student\.', '')])
    for name, value in pretrained.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


def test_mmpretrains_own_models_load_their_own_checkpoints(tmp_path):
    """With this package imported, as here."""
    from mmpretrain.registry import MODELS

    init_default_scope('mmpretrain')
    cfg = dict(BACKBONE, type='MixMIMTransformer', img_size=128)
    source, model = MODELS.build(cfg), MODELS.build(cfg)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'theirs.pth')
    load_checkpoint(model, str(tmp_path / 'theirs.pth'), strict=True)
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize(
    'depths, message',
    [([1, 1, 3, 1], 'lack backbone.layers.2.blocks.2'), ([1] * 4, 'have the unknown')],
)
@pytest.mark.parametrize('build', [classifier, segmentor])
def test_encoder_of_another_depth_is_refused(build, depths, message, save, monkeypatch):
    """Blocks that stay random would only be listed."""
    for cfg in (BACKBONE, DENSE):
        monkeypatch.setitem(cfg, 'arch', cfg['arch'] | dict(depths=depths))
    with pytest.raises(ValueError, match=f'of another arch: they {message}'):
        load_checkpoint(build(), save('mmmixmim'))


@pytest.mark.parametrize('key', ['model', 'state_dict'])
def test_entries_next_to_the_authors_weights_are_kept(pretrained, key):
    """Of the file, of the state dict, and those outside of a prefix."""
    state = convert_state_dict(pretrained.state_dict(), 'authors')
    below = {f'teacher.{name}': value for name, value in state.items()}
    content = {key: below | {'step': torch.ones(1)}, 'epoch': 3}
    translated = translate_checkpoint(content)
    assert translated['epoch'] == 3 and set(translated) == {'epoch', 'state_dict'}
    weights = translated['state_dict']
    assert weights.keys() == {
        'step',
        *(f'teacher.{name}' for name in pretrained.state_dict()),
    }
    for name, value in pretrained.state_dict().items():
        assert torch.equal(weights[f'teacher.{name}'], value)
