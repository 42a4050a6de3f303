"""The paper's ablations, SimMIM, and other targets, as options of the algorithm."""

import pytest
import torch
from mmpretrain.models.heads import SimMIMHead
from mmpretrain.models.necks import SimMIMLinearDecoder
from mmpretrain.models.selfsup import SimMIM, SimMIMSwinTransformer
from mmpretrain.models.selfsup.maskfeat import HOGGenerator
from mmpretrain.structures import DataSample

from mmmixmim.models import (
    MixMIM,
    MixMIMPretrainHead,
    MixMIMTransformer,
    TokenOwnership,
)
from mmmixmim.models.mixing import FILLINGS
from mmmixmim.registry import MODELS

ARCH = dict(embed_dims=16, depths=[1, 1, 1], num_heads=[1, 2, 4])
NECK = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)
SWIN = dict(arch=ARCH, img_size=64, window_size=4, out_indices=(2,), drop_path_rate=0.0)


def build(backbone=None, **options):
    backbone = backbone or dict(type='MixMIMTransformer', arch=ARCH, img_size=64)
    return MixMIM(backbone, options.pop('neck', dict(NECK)), **options)


def simmim_parts():
    """Decoder and head of mmpretrain, as in its SimMIM configs."""
    loss = dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
    return dict(
        neck=dict(type='SimMIMLinearDecoder', in_channels=64, encoder_stride=16),
        head=dict(type='SimMIMHead', patch_size=4, loss=loss),
    )


@pytest.mark.parametrize(
    'options',
    [
        dict(num_images=3),
        dict(num_images=4),
        dict(num_images=3, isolate=False),
        dict(num_images=3, reconstruct='own'),
        dict(isolate=False),
        dict(reconstruct='own'),
        dict(head=dict(target='hog')),
        dict(head=dict(norm_pix=False)),
        dict(mask_ratio=0.25, neck=dict(NECK, decoder_depth=2, decoder_embed_dims=16)),
        *(dict(filling=name) for name in FILLINGS),
    ],
    ids=str,
)
def test_every_parameter_learns_and_pictures_have_the_size_of_images(options):
    model = build(**options)
    images = torch.randn(12, 3, 64, 64)
    loss = model.loss(images)['loss']
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.any(), name
    if options.get('head') == dict(target='hog'):
        with pytest.raises(ValueError, match='no reconstruction to show'):
            model.reconstruct(images)
        return
    result = model.reconstruct(images)
    assert result['mixed'].shape == result['reconstruction'].shape == images.shape
    again = model.loss(images, mask=result['mask'])['loss']
    assert again.isfinite()


@torch.no_grad()
def test_loss_of_three_images_cell_by_cell():
    """Against the definition: decode each image of each mixture, score it elsewhere."""
    model = build(num_images=3, head=dict(norm_pix=False)).eval()
    images = torch.randn(6, 3, 64, 64)
    owners = torch.randint(3, (1, 4, 4))
    latent = model.backbone(images, TokenOwnership(owners, 3))[-1]
    tokens = model.neck.decoder_embed(latent.flatten(2).transpose(1, 2))
    cells = model.head.patchify(images)
    errors = []
    for mixture in range(6):
        for k in range(3):
            seen = (owners.flatten() == k)[:, None]
            decoded = torch.where(seen, tokens[mixture], model.neck.mask_token)
            decoded = decoded + model.neck.decoder_pos_embed
            for block in model.neck.decoder_blocks:
                decoded = block(decoded)
            pred = model.neck.decoder_pred(model.neck.decoder_norm(decoded))[0]
            target = cells[(mixture + 2 * k) % 6]
            errors.append((pred - target).square().mean(1)[~seen[:, 0]])
    wanted = torch.cat(errors).mean()
    torch.testing.assert_close(model.loss(images, mask=owners)['loss'], wanted)


@torch.no_grad()
def test_own_reconstruction_is_scored_where_hidden():
    model = build(reconstruct='own', head=dict(norm_pix=False)).eval()
    images, mask = torch.randn(2, 3, 64, 64), torch.zeros(1, 4, 4)
    mask[0, 1, :3] = 1
    result = model.reconstruct(images, mask)
    hidden = (
        mask.repeat_interleave(16, 1).repeat_interleave(16, 2).bool().expand(3, -1, -1)
    )
    error = (result['reconstruction'] - images)[:, hidden].square().mean()
    assert (result['reconstruction'] == images)[:, ~hidden].all()
    torch.testing.assert_close(model.loss(images, mask=mask)['loss'], error)


@torch.no_grad()
def test_open_owners_see_each_other():
    images, other = torch.randn(2, 2, 3, 64, 64)
    other[0] = images[0]
    mask = torch.eye(4)[None]
    for isolate, reached in ((True, False), (False, True)):
        model = build(isolate=isolate).eval()
        maps = [
            model.backbone(each, model.ownership(each, mask))[-1][0]
            for each in (images, other)
        ]
        own = mask[0] == 0
        assert torch.equal(*(each[:, own] for each in maps)) is not reached


@pytest.mark.parametrize('backbone', ['MixMIMTransformer', 'MixMIMSwinTransformer'])
@torch.no_grad()
def test_what_fills_is_seen(backbone):
    options = SWIN if 'Swin' in backbone else dict(arch=ARCH, img_size=64)
    model = build(dict(type=backbone, **options), filling='mask_token').eval()
    images, mask = torch.randn(2, 3, 64, 64), torch.eye(4)[None]
    before = model.loss(images, mask=mask)['loss']
    model.filling.token.normal_()
    assert model.loss(images, mask=mask)['loss'] != before


def test_simmim_has_the_loss_of_mmpretrain():
    """Same weights, images and masks: mmpretrain's SimMIM, and ours by options."""
    swin = dict(SWIN, img_size=112)
    parts = simmim_parts()
    del swin['window_size']  # 7, mmpretrain's default
    stock = SimMIM(
        SimMIMSwinTransformer(**swin),
        MODELS.build(parts['neck']),
        MODELS.build(parts['head']),
    )
    stock.backbone.mask_token.data.normal_()
    ours = build(
        dict(type='MixMIMSwinTransformer', **swin),
        filling='mask_token',
        **simmim_parts(),
    )
    weights = stock.state_dict()
    token = weights.pop('backbone.mask_token')
    ours.load_state_dict({**weights, 'filling.token': token.flatten()})
    assert type(ours.neck) is SimMIMLinearDecoder and type(ours.head) is SimMIMHead

    images = torch.randn(3, 3, 112, 112)
    for cells in (torch.rand(3, 7, 7) < 0.6, torch.rand(1, 7, 7) < 0.6):
        patches = cells.repeat_interleave(4, 1).repeat_interleave(4, 2)
        samples = [DataSample() for _ in images]
        for sample, mask in zip(samples, patches.expand(3, -1, -1), strict=True):
            sample.mask = mask
        wanted = stock.loss(images, samples)['loss']
        found = ours.loss(images, mask=cells)['loss']
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=0)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(
        ours.filling.token.grad, stock.backbone.mask_token.grad.flatten()
    )


def test_simmim_reconstructs_hidden_cells_only():
    swin = dict(type='MixMIMSwinTransformer', **SWIN)
    model = build(swin, filling='mask_token', **simmim_parts()).eval()
    images, mask = torch.randn(2, 3, 64, 64), torch.eye(4)[None]
    result = model.reconstruct(images, mask)
    assert not result['reconstruction'].requires_grad
    hidden = mask.repeat_interleave(16, 1).repeat_interleave(16, 2).bool()
    changed = (result['reconstruction'] != images).any(1)
    assert torch.equal(changed, hidden.expand(2, -1, -1))
    assert (result['mixed'] == 0).all(1).equal(hidden.expand(2, -1, -1))


def test_hog_is_that_of_mmpretrain():
    head = MixMIMPretrainHead(16, target='hog')
    images = torch.randn(2, 3, 224, 224)
    generator = HOGGenerator()
    generator(images)
    wanted = generator.out.flatten(1, 2)  # (2, 3 * bins, 28, 28)
    cells = head.construct_target(images).view(2, 14, 14, 2, 2, 27)
    for y, x in ((0, 0), (3, 20), (27, 13)):
        found = cells[:, y // 2, x // 2, y % 2, x % 2]
        assert torch.equal(found, wanted[:, :, y, x])
    assert head.target_dims == 4 * 27


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_images=1), 'num_images'),
        (dict(num_images=5), 'num_images'),
        (dict(filling='grey'), "Unknown filling 'grey'"),
        (dict(filling='zeros', num_images=3), "num_images=3 needs filling='partner'"),
        (dict(filling='zeros', isolate=True), 'no token would see the filling'),
        (dict(filling='zeros', reconstruct='all'), 'one image only'),
        (dict(reconstruct='both'), "'all' or 'own', got 'both'"),
        (dict(head=dict(target='edges')), "'pixels' or 'hog', got 'edges'"),
        (dict(filling='zeros', head=simmim_parts()['head']), 'do not go together'),
        (dict(filling='zeros', neck=simmim_parts()['neck']), 'do not go together'),
        (simmim_parts(), 'isolate=False: leave'),
        (dict(isolate=False, reconstruct='own', **simmim_parts()), 'needs a filling'),
        (dict(head=dict(target='hog', norm_pix=False)), 'norm_pix=False needs target='),
    ],
    ids=str,
)
def test_options_that_mean_nothing_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    'options, mask, message',
    [
        (dict(reconstruct='own'), torch.zeros(1, 4, 4), 'hides no cell'),
        (dict(filling='shuffled_cells'), torch.ones(1, 4, 4), 'hides an image whole'),
        (dict(num_images=4), torch.zeros(1, 4, 4), None),
    ],
    ids=str,
)
def test_masks_must_leave_something_to_do(options, mask, message):
    model = build(**options)
    if message is None:
        assert model.loss(torch.rand(4, 3, 64, 64), mask=mask)['loss'].isfinite()
        return
    with pytest.raises(ValueError, match=message):
        model.loss(torch.rand(4, 3, 64, 64), mask=mask)


def test_ownership_of_another_model_is_refused():
    ownership = build(num_images=2).ownership(torch.rand(6, 3, 64, 64))
    for options in (dict(num_images=3), dict(isolate=False), dict(filling='zeros')):
        with pytest.raises(ValueError, match='pass the mask'):
            build(**options).loss(torch.rand(6, 3, 64, 64), mask=ownership)


def test_hog_is_float32_under_autocast():
    model = build(head=dict(target='hog'))
    images = torch.rand(2, 3, 64, 64)
    wanted = model.head.construct_target(images)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model.head.construct_target(images), wanted)


def test_simmim_counts_hidden_pixels_in_float32():
    """Their number, 33 * 64 * 64 / 2, overflows in float16."""
    model = build(filling='mask_token', **simmim_parts())
    images = torch.rand(33, 3, 64, 64)
    ownership = model.ownership(images)
    pred = model.encode_decode(images, ownership)
    wanted = model.compare(pred, images, ownership)
    found = model.compare(pred.half(), images, ownership)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    'channels, size, message',
    [(1, 64, 'in_channels=1 and stride=16'), (3, (64, 128), 'square images.*64x128')],
)
def test_hog_refuses_what_it_cannot_measure(channels, size, message):
    with pytest.raises(ValueError, match=message):
        model = build(
            MixMIMTransformer(ARCH, size, in_channels=channels),
            head=dict(target='hog'),
        )
        model.loss(torch.randn(2, 3, *model.backbone.img_size))
