"""ConvNeXt V1 and V2 with mixed images."""

import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import ConvNeXt
from mmpretrain.registry import MODELS as STOCK

from mmmixmim.models import MixMIM, MixMIMConvNeXt, TokenOwnership, check_encoder
from mmmixmim.validation import UserError

SIZES = dict(depths=[1, 1, 2, 1], channels=[8, 16, 24, 32])
V2 = dict(use_grn=True, layer_scale_init_value=0.0)
DECODER = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)


def ours(**kwargs):
    return MixMIMConvNeXt(**dict(arch=SIZES, img_size=64) | kwargs)


def alive(**kwargs):
    """A model whose layer scales and response norms do something."""
    model = ours(**kwargs)
    for name, parameter in model.named_parameters():
        if 'gamma' in name or 'beta' in name:
            torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize(
    'options',
    [
        {},
        V2,
        V2 | dict(linear_pw_conv=False, gap_before_final_norm=False),
        V2 | dict(with_cp=True),
        dict(frozen_stages=1, with_cp=True),
    ],
    ids=['v1', 'v2', 'convolutions', 'checkpointed', 'frozen'],
)
def test_contract(options):
    check_encoder(lambda: ours(**options), lambda: ConvNeXt(SIZES, **options))


@pytest.mark.parametrize(
    'arch, options, stride',
    [('tiny', {}, 32), ('atto', V2, 32), ('base', V2 | dict(stem_patch_size=2), 16)],
)
def test_published_sizes_have_the_stock_parameters(arch, options, stride):
    model, stock = MixMIMConvNeXt(arch, **options), ConvNeXt(arch, **options)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }
    assert (model.stride, model.img_size) == (stride, (224, 224))
    assert model.out_channels == stock.channels


@pytest.mark.parametrize('options', [{}, V2], ids=['v1', 'v2'])
def test_with_one_owner_it_is_the_stock_class(options):
    model = alive(gap_before_final_norm=False, **options)
    images = torch.randn(2, 3, 64, 96)
    for isolated in (True, False):
        alone = TokenOwnership(torch.zeros(1, 2, 3), isolated=isolated)
        torch.testing.assert_close(model(images, alone)[0], model(images)[0])


@pytest.mark.parametrize('options', [{}, V2], ids=['v1', 'v2'])
def test_owners_that_are_not_isolated_meet(options):
    """As in the stock class, from the mixed embedding on."""
    model = alive(gap_before_final_norm=False, **options)
    images = torch.randn(2, 3, 64, 64)
    mask = torch.tensor([[[0, 1], [1, 1]]])
    isolated, open_ = (
        model(images, TokenOwnership(mask, isolated=isolated))[0]
        for isolated in (True, False)
    )
    assert (isolated - open_)[0, :, 0, 0].abs().max() > 1e-3
    # Pixels of a cell make its tokens alone, so pixels can be mixed just as well.
    pixels = TokenOwnership(mask).mix(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(open_, model(pixels)[0])


@pytest.mark.parametrize('options', [{}, V2], ids=['v1', 'v2'])
def test_three_owners_do_not_meet(options):
    model = alive(**options)
    owners = torch.tensor([[[0, 1, 2], [2, 0, 1]]])
    ownership = TokenOwnership(owners, images=3)
    images = torch.randn(3, 3, 64, 96)
    changed = images.clone()
    changed[1].normal_()
    differ = (model(images, ownership)[0] != model(changed, ownership)[0]).any(1)
    for i in range(3):  # mixture i shows image 1 where its owner is 1 - i
        assert torch.equal(differ[i], owners[0] == (1 - i) % 3)


@pytest.mark.parametrize('options', [{}, V2], ids=['v1', 'v2'])
def test_three_images_give_a_finite_loss(options):
    model = MixMIM(ours(**options), DECODER, num_images=3)
    loss = model.loss(torch.rand(3, 3, 96, 64))['loss']
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters())


def test_dead_channels_and_absent_owners_have_finite_gradients():
    """Where the response norm meets zeros only."""
    model = ours(act_cfg=dict(type='ReLU'), **V2)
    torch.nn.init.constant_(model.stages[0][0].pointwise_conv1.bias, -100)
    ownership = TokenOwnership(torch.zeros(1, 2, 2))
    model(torch.rand(2, 3, 64, 64), ownership)[0].square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('options', [{}, V2], ids=['v1', 'v2'])
def test_it_learns(options):
    model = MixMIM(ours(**options), DECODER)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    images = torch.rand(4, 3, 64, 64).repeat_interleave(2, 0)
    losses = []
    for _ in range(30):
        loss = model.loss(images)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_weights_load_into_the_stock_classifier(tmp_path):
    source = MixMIM(dict(type='MixMIMConvNeXt', arch=SIZES, img_size=64, **V2), DECODER)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'convnext.pth')
    init_default_scope('mmpretrain')
    init_cfg = dict(
        type='Pretrained',
        checkpoint=str(tmp_path / 'convnext.pth'),
        prefix='backbone.',
    )
    model = STOCK.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ConvNeXt', arch=SIZES, init_cfg=init_cfg, **V2),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
        )
    )
    assert type(model.backbone) is ConvNeXt
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert loaded.keys() == source.backbone.state_dict().keys()
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_maps_of_all_stages():
    model = ours(out_indices=[-1, 0, 1, 2], gap_before_final_norm=False).eval()
    images = torch.rand(2, 3, 64, 96)
    ownership = TokenOwnership(torch.zeros(1, 2, 3))
    for maps in (model(images), model(images, ownership)):
        sizes = [tuple(each.shape[1:]) for each in maps]
        assert sizes == [(8, 16, 24), (16, 8, 12), (24, 4, 6), (32, 2, 3)]


def test_three_stages_count_from_their_own_last():
    sizes = dict(depths=[1, 1, 1], channels=[8, 16, 32])
    model = MixMIMConvNeXt(sizes, img_size=(32, 48))
    assert (model.out_indices, model.stride, model.img_size) == ((2,), 16, (32, 48))
    assert model(torch.rand(1, 3, 32, 32))[0].shape == (1, 32)


def test_frozen_stages_stay_frozen_in_training():
    model = ours(frozen_stages=2)
    assert model.train() is model
    assert not model.stages[1].training and model.stages[2].training
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert {name.split('.')[1] for name in frozen} == {'0', '1'}


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(out_indices=(4,)), r'stages 0 to 3, got \(4,\)'),
        (dict(frozen_stages=5), 'frozen_stages.*between -1 and 4, got 5'),
        (dict(img_size=65), 'img_size 65x65 is not divisible by the stride 32'),
        (dict(img_size='64'), "img_size must be a positive int.*got '64'"),
        (dict(norm_cfg=dict(type='BN')), 'norms over the channels.*got BatchNorm2d'),
    ],
)
def test_refused_arguments(options, message):
    with pytest.raises(UserError, match=message):
        ours(**options)


def test_pretraining_refuses_several_maps():
    with pytest.raises(UserError, match=r'leave out_indices out.*\(0, 3\)'):
        MixMIM(ours(out_indices=(0, 3)))
