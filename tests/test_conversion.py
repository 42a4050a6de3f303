"""Formats against the authors' list of names and mmpretrain's real models."""

import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS

from mmmixmim.checkpoint import FORMATS, detect_format
from mmmixmim.conversion import convert_state_dict
from mmmixmim.models import TokenOwnership
from mmmixmim.registry import MODELS

ARCH = dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
SIZE = dict(arch=ARCH, img_size=128, window_size=[8, 8, 8, 4])
DECODER = dict(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)


def ours(pretraining=True):
    backbone = dict(type='MixMIMTransformer', **SIZE)
    if pretraining:
        neck = dict(type='MixMIMPretrainDecoder', **DECODER)
        model = dict(type='MixMIM', backbone=backbone, neck=neck)
    else:
        head = dict(type='LinearClsHead', num_classes=10, in_channels=128)
        neck = dict(type='GlobalAveragePooling')
        model = dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    with MODELS.switch_scope_and_registry('mmmixmim') as registry:
        return registry.build(model).eval()


def mmpretrains(pretraining=True):
    if pretraining:
        model = dict(
            type='MixMIM',
            backbone=dict(type='MixMIMPretrainTransformer', **SIZE),
            neck=dict(
                type='MixMIMPretrainDecoder',
                num_patches=16,
                embed_dim=128,
                encoder_stride=32,
                norm_cfg=dict(type='LN', eps=1e-5),
                **DECODER,
            ),
            head=dict(
                type='MixMIMPretrainHead',
                norm_pix=True,
                loss=dict(type='PixelReconstructionLoss', criterion='L2'),
            ),
        )
    else:
        model = dict(
            type='ImageClassifier',
            backbone=dict(type='MixMIMTransformer', **SIZE),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
        )
    with MMPRETRAIN_MODELS.switch_scope_and_registry('mmpretrain') as registry:
        return registry.build(model).eval()


def randomise(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def assert_same(a, b):
    assert list(sorted(a)) == list(sorted(b))
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.fixture(params=[True, False], ids=['pretraining', 'classification'])
def pretraining(request):
    return request.param


def test_names_of_the_authors(reference):
    names = reference['pretrain_parameters']
    state = convert_state_dict(ours().state_dict(), 'authors')
    assert {name: list(value.shape) for name, value in state.items()} == {
        name: shape for name, shape in names.items()
    }


@pytest.mark.parametrize('target', FORMATS)
@pytest.mark.parametrize('source', FORMATS)
def test_round_trips_are_exact(pretraining, source, target):
    model = mmpretrains(pretraining) if source == 'mmpretrain' else ours(pretraining)
    state = randomise(model).state_dict()
    if source != 'mmpretrain':
        state = convert_state_dict(state, source)
    assert detect_format(state) == source
    there = convert_state_dict(state, target)
    assert detect_format(there) == target
    assert_same(convert_state_dict(there, source), state)


def test_weights_of_mmpretrain_load_strictly_and_back(pretraining):
    theirs, model = mmpretrains(pretraining), ours(pretraining)
    state = convert_state_dict(randomise(theirs).state_dict(), 'mmmixmim')
    model.load_state_dict(state, strict=True)
    back = convert_state_dict(model.state_dict(), 'mmpretrain')
    mmpretrains(pretraining).load_state_dict(back, strict=True)


def test_classifier_computes_what_mmpretrains_does():
    theirs, model = randomise(mmpretrains(False)), ours(False)
    model.load_state_dict(convert_state_dict(theirs.state_dict(), 'mmmixmim'))
    images = torch.randn(2, 3, 128, 128)
    torch.testing.assert_close(model(images), theirs(images), rtol=1e-5, atol=1e-5)


def test_pretraining_computes_what_mmpretrains_does():
    theirs, model = mmpretrains(), ours()
    model.load_state_dict(convert_state_dict(theirs.state_dict(), 'mmmixmim'))
    images = torch.randn(2, 3, 128, 128)
    assert_same_computation(theirs, model, images, (4, 4))


def assert_same_computation(theirs, model, images, grid):
    # mmpretrain draws its mask inside: let it, and take the mask from there.
    latent, rows = theirs.backbone(images)
    mask = rows.view(1, *grid)
    maps = model.backbone(images, mask)[-1]
    torch.testing.assert_close(
        maps.flatten(2).transpose(1, 2), latent, rtol=1e-5, atol=1e-5
    )
    both = theirs.neck(latent, rows)
    decoded = model.neck.decode(maps, TokenOwnership(mask))
    torch.testing.assert_close(
        model.neck.decoder_pred(decoded), both, rtol=1e-5, atol=1e-5
    )
    loss = theirs.head.loss(both, images, rows)
    torch.testing.assert_close(
        model.loss(images, mask=mask)['loss'], loss, rtol=1e-5, atol=0
    )


@pytest.mark.slow
def test_base_shapes_compute_what_mmpretrains_do():
    """Features of both passes, reconstruction and loss of the real size."""
    size = dict(arch='base', img_size=224)
    backbone = dict(type='MixMIMPretrainTransformer', **size)
    neck = dict(
        type='MixMIMPretrainDecoder',
        num_patches=49,
        encoder_stride=32,
        norm_cfg=dict(type='LN', eps=1e-5),
    )
    head = dict(
        type='MixMIMPretrainHead',
        norm_pix=True,
        loss=dict(type='PixelReconstructionLoss', criterion='L2'),
    )
    with MMPRETRAIN_MODELS.switch_scope_and_registry('mmpretrain') as registry:
        theirs = registry.build(
            dict(type='MixMIM', backbone=backbone, neck=neck, head=head)
        ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    model = MODELS.build(
        dict(type='MixMIM', backbone=dict(type='MixMIMTransformer', **size))
    ).eval()
    model.load_state_dict(convert_state_dict(theirs.state_dict(), 'mmmixmim'))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert_same_computation(theirs, model, images, (7, 7))


@pytest.mark.parametrize('format', ['authors', 'mmpretrain', 'mmmixmim'])
def test_missing_and_unknown_entries_are_named(format):
    state = convert_state_dict(ours().state_dict(), format)
    lacking = {k: v for k, v in state.items() if not k.endswith('attn.proj.bias')}
    with pytest.raises(
        ValueError, match=r'lacks backbone.layers.0.*, backbone.layers.1.*first of \d'
    ):
        convert_state_dict(lacking, 'mmmixmim')
    with pytest.raises(ValueError, match='the unknown .*backbone.momentum '):
        convert_state_dict(state | {'backbone.momentum': torch.ones(1)}, 'mmmixmim')


def test_norms_of_dense_maps_stay_in_our_format_only():
    state = ours(False).state_dict()
    state |= {
        'backbone.norm1.weight': torch.ones(32),
        'backbone.norm1.bias': torch.ones(32),
    }
    assert_same(convert_state_dict(state, 'mmmixmim'), state)
    for format in ('authors', 'mmpretrain'):
        with pytest.raises(ValueError, match='norm1.weight .*dense map.*only'):
            convert_state_dict(state, format)


def test_other_checkpoints_are_refused():
    with pytest.raises(ValueError, match='not a MixMIM checkpoint.*conv1.weight'):
        detect_format({'conv1.weight': torch.ones(1)})
    with pytest.raises(ValueError, match='not a MixMIM checkpoint.*nothing'):
        detect_format({})
    with pytest.raises(ValueError, match="Unknown format 'timm'"):
        convert_state_dict(ours().state_dict(), 'timm')


def test_necks_that_no_other_format_has_are_named():
    state = ours(pretraining=False).state_dict()
    state['neck.1.bn.weight'] = torch.ones(128)
    with pytest.raises(ValueError, match='has the unknown neck.1.bn.weight'):
        convert_state_dict(state, 'authors')


def test_windows_that_are_not_square_stay_ours():
    """Even where a table has as many rows as a square window's."""
    backbone = dict(type='MixMIMTransformer', **SIZE | dict(window_size=[(2, 14)] * 4))
    backbone['img_size'] = 448
    with MODELS.switch_scope_and_registry('mmmixmim') as registry:
        model = registry.build(dict(type='MixMIM', backbone=backbone))
    with pytest.raises(ValueError, match='windows of 2x14: only the format mmmixmim'):
        convert_state_dict(model.state_dict(), 'authors')


@pytest.mark.parametrize(
    'name, shape',
    [
        ('neck.decoder_pred.weight', (3, 3)),
        ('backbone.layers.0.downsample.norm.weight', (10,)),
        ('backbone.layers.2.blocks.0.mlp.fc2.bias', (16,)),
        ('backbone.norm.weight', (64,)),
        ('backbone.absolute_pos_embed', (1, 64, 8)),
    ],
)
@pytest.mark.parametrize('format', ['authors', 'mmpretrain', 'mmmixmim'])
def test_shapes_that_do_not_go_together_are_named(name, shape, format):
    state = convert_state_dict(ours().state_dict(), format)
    order = list(ours().state_dict())
    theirs = [each for each in state if not each.endswith('relative_position_index')]
    state[theirs[order.index(name)]] = torch.ones(shape)
    with pytest.raises(ValueError, match=f'has {name} .*of shape') as error:
        convert_state_dict(state, 'mmmixmim')
    assert str(shape) in str(error.value)


def test_lacking_stage_is_refused():
    state = {k: v for k, v in ours().state_dict().items() if 'layers.3' not in k}
    with pytest.raises(ValueError, match='unknown backbone.layers.2.downsample'):
        convert_state_dict(state, 'authors')


def test_entry_by_two_names_is_refused():
    state = convert_state_dict(ours().state_dict(), 'mmpretrain')
    state['backbone.layers.0.blocks.0.norm1.weight'] = torch.ones(16)
    with pytest.raises(ValueError, match='has layers.0.blocks.0.norm1.weight twice'):
        convert_state_dict(state, 'mmmixmim')
