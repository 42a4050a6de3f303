"""HiViT with mixed images."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmpretrain.models.backbones import HiViT
from mmpretrain.registry import MODELS as STOCK

from mmmixmim import ops
from mmmixmim.models import MixMIM, MixMIMHiViT, TokenOwnership, check_encoder
from mmmixmim.validation import UserError

# The stock class fails if the last stage has no more blocks than the stem, here 6.
STOCK_SIZES = dict(embed_dims=32, depths=[1, 1, 7], num_heads=2)
SIZES = dict(embed_dims=32, depths=[1, 1, 2], num_heads=2)
DECODER = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)

pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')


def ours(**kwargs):
    return MixMIMHiViT(**dict(arch=SIZES, img_size=64) | kwargs)


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(rpe=True),
        dict(ape=False, rpe=True, layer_scale_init_value=0.1, qk_scale=0.2),
        dict(ape=False, qkv_bias=False, patch_norm=False),
    ],
    ids=['ape', 'both', 'rpe', 'neither'],
)
def test_contract(options):
    options = dict(arch=STOCK_SIZES, img_size=64) | options
    size = (64, 64) if options.get('rpe') else None
    check_encoder(
        lambda: MixMIMHiViT(**options),
        lambda: HiViT(out_indices=[6], **options),
        size,
    )


@pytest.mark.parametrize('arch', ['tiny', 'base'])
def test_published_sizes_have_the_stock_parameters(arch):
    model, stock = MixMIMHiViT(arch, rpe=True), HiViT(arch, rpe=True)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }
    assert (model.stride, model.img_size) == (16, (224, 224))
    assert model.out_channels[-1] == stock.embed_dims
    assert model.out_channels[0] == stock.patch_embed.embed_dim
    assert model.out_indices == (stock.out_indices[-1],)


@pytest.mark.parametrize('rpe', [False, True])
def test_attention_inside_one_owner_is_the_stock_attention(rpe):
    model = ours(rpe=rpe, layer_scale_init_value=0.5).eval()
    images = torch.randn(2, 3, 64, 64)
    alone = TokenOwnership(torch.zeros(1, 4, 4))
    torch.testing.assert_close(model(images, alone)[0], model(images)[0])


@pytest.mark.parametrize('rpe', [False, True])
def test_each_owner_attends_as_the_stock_class_with_the_others_masked(rpe):
    model = ours(rpe=rpe, qk_scale=2.0).eval()
    attn = model.blocks[-1].attn
    seen = {}
    hooks = [
        attn.qkv.register_forward_hook(lambda _, args, out: seen.update(x=args[0])),
        attn.proj.register_forward_hook(lambda _, args, out: seen.update(out=out)),
    ]
    mask = torch.rand(2, 4, 4) < 0.5
    model(torch.randn(2, 3, 64, 64), TokenOwnership(mask))
    for hook in hooks:
        hook.remove()
    x, found = seen['x'], seen['out']
    own = mask.flatten(1)
    for keys in (own, ~own):
        wanted = attn(x, True if rpe else None, mask=keys)
        torch.testing.assert_close(found[keys], wanted[keys])


def test_its_mask_keeps_cudnn_out_on_a_gpu(monkeypatch):
    seen, original = [], torch.nn.functional.scaled_dot_product_attention

    def watched(*args, **kwargs):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return original(*args, **kwargs)

    monkeypatch.setattr('torch.nn.functional.scaled_dot_product_attention', watched)
    with ops.as_on_gpu():
        ours()(torch.randn(2, 3, 64, 64), TokenOwnership(torch.eye(4)[None]))
    assert seen == [False, False]  # two blocks


def test_attention_is_dropped_in_training_only():
    model = ours(attn_drop_rate=0.5)
    images, ownership = torch.randn(2, 3, 64, 64), TokenOwnership(torch.eye(4)[None])
    for training in (True, False):
        model.train(training)
        first, second = (model(images, ownership)[0] for _ in range(2))
        assert torch.equal(first, second) != training


def test_owners_that_are_not_isolated_meet():
    """As in the stock class, from the mixed embedding on."""
    model = ours().eval()
    images = torch.randn(2, 3, 64, 64)
    mask = torch.rand(1, 4, 4) < 0.5
    mask[0, 0, 0], mask[0, 3, 3] = True, False
    isolated, open_ = (
        model(images, TokenOwnership(mask, isolated=isolated))[0]
        for isolated in (True, False)
    )
    assert (isolated - open_).abs().max() > 1e-4
    # Pixels of a cell make its tokens alone, so pixels can be mixed just as well.
    pixels = TokenOwnership(mask).mix(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(open_, model(pixels)[0])


@pytest.mark.parametrize('rpe', [False, True])
def test_three_owners_do_not_meet(rpe):
    model = ours(rpe=rpe).eval()
    owners = torch.randperm(16).view(1, 4, 4) % 3
    ownership = TokenOwnership(owners, images=3)
    images = torch.randn(3, 3, 64, 64)
    changed = images.clone()
    changed[1].normal_()
    differ = (model(images, ownership)[0] != model(changed, ownership)[0]).any(1)
    for i in range(3):  # mixture i shows image 1 where its owner is 1 - i
        assert torch.equal(differ[i], owners[0] == (1 - i) % 3)


def test_long_runs_of_one_owner_stay_finite_and_apart():
    """Attention in chunks of keys meets chunks that hold other owners only."""
    model = ours(img_size=512).eval()
    mask = torch.arange(1024).view(1, 32, 32) < 600
    images = torch.randn(2, 3, 512, 512)
    changed = torch.stack([images[0], torch.randn(3, 512, 512)])
    ownership = TokenOwnership(mask)
    before, after = (model(each, ownership)[0][0] for each in (images, changed))
    assert before.isfinite().all()
    assert torch.equal((before != after).any(0), mask[0])


@pytest.mark.parametrize('options', [{}, dict(ape=False, rpe=True)])
def test_three_images_give_a_finite_loss(options):
    model = MixMIM(ours(**options), DECODER, num_images=3)
    loss = model.loss(torch.rand(3, 3, 64, 64))['loss']
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.backbone.parameters())


@pytest.mark.parametrize('filling', ['mask_token', 'shuffled_cells'])
def test_other_fillings_take_its_embedding(filling):
    model = MixMIM(ours(), DECODER, filling=filling)
    assert model.loss(torch.rand(2, 3, 64, 80))['loss'].isfinite()


@pytest.mark.parametrize('rpe', [False, True])
def test_it_learns(rpe):
    model = MixMIM(ours(rpe=rpe), DECODER)
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
    encoder = dict(type='MixMIMHiViT', arch=STOCK_SIZES, img_size=64, rpe=True)
    source = MixMIM(encoder, DECODER)
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'hivit.pth')
    init_default_scope('mmpretrain')
    init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'hivit.pth'), prefix='backbone.'
    )
    backbone = encoder | dict(type='HiViT', out_indices=[-1], init_cfg=init_cfg)
    model = STOCK.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
        )
    )
    assert type(model.backbone) is HiViT
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert loaded.keys() == source.backbone.state_dict().keys()
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_images_of_another_size_get_a_resized_position_embedding():
    model = MixMIMHiViT(STOCK_SIZES, 64).eval()
    stock = HiViT(STOCK_SIZES, 64, out_indices=[6])
    stock.eval()  # returns None
    stock.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 96, 32)
    assert torch.equal(model(images)[0], stock(images)[0])
    ownership = TokenOwnership(torch.zeros(1, 6, 2))
    torch.testing.assert_close(model(images, ownership)[0], stock(images)[0])


def test_a_size_with_two_sides():
    """For which the stock class cannot even encode images of that very size."""
    model = ours(img_size=(64, 96)).eval()
    with torch.no_grad():  # every row of the embedding is a ramp over the columns
        model.pos_embed.copy_(
            torch.arange(6.0).repeat(4).view(1, 24, 1).expand(-1, -1, 32)
        )
    assert model.interpolate_pos_encoding(None, 64, 96) is model.pos_embed
    resized = model.interpolate_pos_encoding(None, 32, 192).view(2, 12, 32)
    assert torch.equal(resized[0], resized[1])
    assert (resized[0].diff(dim=0) > 0).all()
    for size in [(64, 96), (96, 64)]:
        cells = TokenOwnership(torch.ones(1, size[0] // 16, size[1] // 16))
        assert model(torch.rand(2, 3, *size), cells)[0].shape[2:] == cells.grid


def test_maps_of_all_blocks():
    model = ours(out_indices=[0, -1]).eval()
    images = torch.rand(2, 3, 64, 80)
    for ownership in (None, TokenOwnership(torch.ones(1, 4, 5))):
        maps = model(images, ownership)
        assert [tuple(each.shape) for each in maps] == [(2, 32, 4, 5)] * 2
        assert not torch.equal(*maps)


def test_several_maps_of_one_stride_give_a_warning(tmp_path):
    log = tmp_path / 'log.txt'
    MMLogger.get_instance('hivit-maps', log_file=str(log))
    ours()
    assert 'maps of its last stage' not in log.read_text()
    ours(out_indices=(0, 1))
    text = log.read_text()
    assert 'MixMIMHiViT returns 2 maps of its last stage, all with stride 16' in text
    assert 'and 32 channels' in text and 'mmseg.Feature2Pyramid' in text


@pytest.mark.parametrize('name', ['in_channels', 'in_chans'])
def test_channels_have_our_name_and_the_stock_one(name):
    model = ours(**{name: 2})
    assert model.in_channels == 2
    assert model.patch_embed.proj.weight.shape[1] == 2


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(kernel_size=7, pad_size=3),
            'kernel_size and pad_size .* kernel size .7, 7., .* padding .3, 3.',
        ),
        (dict(pad_size=2), 'overlapping or padded patches.* padding .2, 2.'),
        (dict(img_size=(64, 96), rpe=True), 'square img_size, got 64x96'),
        (dict(img_size=72), 'img_size 72x72 is not divisible by the stride 16'),
        (dict(out_indices=2), 'blocks of the last stage 0 to 1, got 2'),
        (dict(inner_patches=8), '3 stages merge the 4 .* inner_patches=8: set it to 4'),
        (dict(frozen_stages=1), 'cannot freeze stages.*frozen_stages=1'),
    ],
)
def test_refused_arguments(options, message):
    with pytest.raises(UserError, match=message):
        ours(**options)


def test_patches_may_be_given_as_they_are():
    assert ours(kernel_size=4, pad_size=0).stride == 16


def test_refused_images():
    model = ours(rpe=True)
    ownership = TokenOwnership(torch.ones(1, 2, 8))
    for given in (None, ownership):  # as many tokens, in another order
        with pytest.raises(UserError, match='must be 64x64, got 32x128'):
            model(torch.rand(2, 3, 32, 128), given)
    with pytest.raises(UserError, match='66x64 is not divisible by the stride 16'):
        ours()(torch.rand(2, 3, 66, 64), ownership)


def test_a_detector_is_told_to_pad_its_batches():
    with pytest.raises(UserError, match=r'16 divides, got 66x64: .*size_divisor=16\)'):
        ours()(torch.rand(2, 3, 66, 64))


def test_pretraining_refuses_several_maps():
    with pytest.raises(UserError, match=r'leave out_indices out.*\(0, 1\)'):
        MixMIM(ours(out_indices=(0, 1)))
