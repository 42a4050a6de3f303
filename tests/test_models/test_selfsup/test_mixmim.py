import warnings

import numpy as np
import pytest
import torch
from mmpretrain.models import ImageClassifier
from torch import nn

from mmmixmim.models import MixMIM, MixMIMPretrainDecoder, MixMIMTransformer
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError

BACKBONE = dict(arch=dict(embed_dims=8, depths=[1, 1], num_heads=[2, 2]), img_size=32)


@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
@pytest.mark.parametrize('batch', [1, 2, 3])
def test_loss_and_gradients(make_mixmim, batch, size):
    model = make_mixmim()
    loss = model.loss(torch.rand(batch, 3, *size))['loss']
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_given_mask_makes_the_loss_deterministic(make_mixmim):
    model, images = make_mixmim(), torch.rand(2, 3, 96, 96)
    mask = model.ownership(images).mask
    assert (
        model.loss(images, mask=mask)['loss'] == model.loss(images, mask=mask)['loss']
    )
    assert len({model.loss(images)['loss'].item() for _ in range(5)}) > 1


def test_the_order_of_a_pair_does_not_matter(make_mixmim):
    model, images = make_mixmim(), torch.rand(2, 3, 64, 64)
    mask = torch.tensor([[[1, 0], [0, 1]]])
    forward = model.loss(images, mask=mask)['loss']
    torch.testing.assert_close(forward, model.loss(images.flip(0), mask=mask)['loss'])


def test_single_image_has_the_loss_of_a_pair_of_itself(make_mixmim):
    model, image = make_mixmim(), torch.rand(1, 3, 64, 64)
    mask = torch.tensor([[[1, 0], [0, 1]]])
    pair = model.loss(image.expand(2, -1, -1, -1), mask=mask)['loss']
    torch.testing.assert_close(model.loss(image, mask=mask)['loss'], pair)


def test_odd_batch_is_its_pairs_and_its_middle(make_mixmim):
    model, images = make_mixmim(), torch.rand(3, 3, 64, 64)
    mask = torch.tensor([[[1, 0], [0, 1]]])
    pair = model.loss(images[[0, 2]], mask=mask)['loss']
    middle = model.loss(images[1:2], mask=mask)['loss']
    expected = (2 * pair + middle) / 3
    torch.testing.assert_close(model.loss(images, mask=mask)['loss'], expected)


def test_reconstruct_shows_the_mixture_and_hides_what_it_should(make_mixmim):
    model, images = make_mixmim().eval(), torch.rand(2, 3, 64, 96)
    mask = torch.tensor([[[1, 0, 0], [0, 1, 1]]])
    result = model.reconstruct(images, mask)
    assert result['mask'].dtype == torch.bool
    assert torch.equal(result['mask'], mask.bool())
    assert torch.equal(result['mixed'][0, :, :32, :32], images[1, :, :32, :32])
    assert torch.equal(result['mixed'][0, :, :32, 32:], images[0, :, :32, 32:])
    assert result['reconstruction'].shape == images.shape

    # A guess depends on its own cell through brightness and contrast alone.
    changed = images.clone()
    changed[0, :, :32, :32] = images[0, :, :32, :32].flip(-1)
    again = model.reconstruct(changed, mask)['reconstruction']
    torch.testing.assert_close(
        again[0, :, :32, :32], result['reconstruction'][0, :, :32, :32]
    )


def test_mask_ratio_and_its_range(make_mixmim):
    images = torch.rand(1, 3, 224, 224)
    assert make_mixmim().ownership(images).mask.sum() == 24
    assert make_mixmim(mask_ratio=0.25).ownership(images).mask.sum() == 12
    three = make_mixmim(num_images=3).ownership(torch.rand(3, 3, 96, 96))
    assert three.owners.flatten().bincount().tolist() == [3, 3, 3]
    small = torch.rand(1, 3, 96, 160)  # 3.75 of its 15 cells
    assert make_mixmim(mask_ratio=0.25).ownership(small).mask.sum() == 3
    ranged = make_mixmim(mask_ratio=0.25, range_mask_ratio=0.5)
    counts = {int(ranged.ownership(images).mask.sum()) for _ in range(200)}
    assert min(counts) >= 12 and max(counts) <= 36 and len(counts) > 15


def test_loss_under_autocast(make_mixmim):
    model, images = make_mixmim(), torch.rand(2, 3, 96, 96)
    mask = model.ownership(images).mask
    full = model.loss(images, mask=mask)['loss']
    with torch.autocast('cpu', torch.bfloat16):
        low = model.loss(images, mask=mask)['loss']
    low.backward()
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(full.item(), rel=0.02)


def test_sizes_follow_from_the_backbone():
    model = MixMIM(backbone=dict(type='MixMIMTransformer', in_channels=2, **BACKBONE))
    assert isinstance(model.neck, MixMIMPretrainDecoder)
    assert model.neck.grid == (4, 4) and model.neck.decoder_embed.in_features == 16
    assert model.neck.decoder_pred.out_features == 8 * 8 * 2
    assert model.head.stride == 8 and model.head.in_channels == 2
    assert model.loss(torch.rand(2, 2, 32, 32))['loss'].isfinite()


class OwnNeck(nn.Module):
    """A decoder that takes none of the sizes."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def forward(self, x, mask):
        return x[-1]


def test_own_parts_get_only_what_they_take():
    backbone = dict(type='MixMIMTransformer', **BACKBONE)
    neck = dict(type=OwnNeck, width=7)
    assert MixMIM(backbone=backbone, neck=neck).neck.width == 7
    shallow = MixMIM(backbone=backbone, neck=dict(decoder_depth=3, img_size=[32, 32]))
    assert len(shallow.neck.decoder_blocks) == 3


def test_parts_can_be_modules():
    backbone = MixMIMTransformer(**BACKBONE)
    assert MixMIM(backbone=backbone).backbone is backbone


@pytest.mark.parametrize('scope', ['mmmixmim', 'mmpretrain', 'mmdet', 'mmseg'])
def test_parts_are_ours_in_any_scope(scope):
    with MODELS.switch_scope_and_registry(scope) as registry:
        backbone = dict(type='MixMIMTransformer', **BACKBONE)
        model = registry.build(dict(type='mmmixmim.MixMIM', backbone=backbone))
    assert type(model) is MixMIM and type(model.backbone) is MixMIMTransformer


def test_extract_feat_is_the_plain_encoder(make_mixmim):
    model, images = make_mixmim(), torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images)[0], model.backbone(images)[0])


def test_encoder_serves_a_classifier(make_mixmim):
    model = ImageClassifier(
        backbone=make_mixmim().backbone,
        neck=dict(type='mmpretrain.GlobalAveragePooling'),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=128),
    )
    assert model(torch.rand(2, 3, 64, 96)).shape == (2, 5)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(mask_ratio=0), 'got mask_ratio=0 '),
        (dict(mask_ratio=1.0), 'got mask_ratio=1.0'),
        (dict(mask_ratio='half'), "got mask_ratio='half'"),
        (dict(mask_ratio=-0.5), 'got mask_ratio=-0.5'),
        (dict(mask_ratio=0.6, range_mask_ratio=0.4), 'range_mask_ratio=0.4'),
        (dict(range_mask_ratio=-0.1), 'range_mask_ratio=-0.1'),
        (
            dict(neck=dict(embed_dim=64)),
            'encoder_channels=64, but .* has 128',
        ),
        (dict(head=dict(patch_size=16)), 'stride=16, but the backbone has 32'),
    ],
)
def test_refuses_arguments_that_make_no_model(make_mixmim, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_mixmim(**arguments)


def test_refuses_what_cannot_be_pretrained():
    with pytest.raises(
        ValueError, match='ResNet cannot be pretrained.*has no stride, img_size'
    ):
        MixMIM(backbone=dict(type='ResNet', depth=18))
    with pytest.raises(ValueError, match=r'mmmixmim\.MixMIMSwinTransformer, or'):
        MixMIM(backbone=dict(type='SwinTransformer', arch='tiny'))
    backbone = dict(type='MixMIMTransformer', out_indices=(0, 1), **BACKBONE)
    with pytest.raises(ValueError, match=r'leave out_indices out.*\(0, 1\)'):
        MixMIM(backbone=backbone)


def test_range_of_ratios_fails_at_once_if_it_can_fail(make_mixmim):
    model = make_mixmim(mask_ratio=0.2, range_mask_ratio=0.3)
    for _ in range(10):
        with pytest.raises(ValueError, match='mask_ratio 0.2 hides 0 of the 4'):
            model.loss(torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize(
    'size, ratio, message',
    [
        ((64, 64), 0.2, 'mask_ratio 0.2 hides 0 of the 4 cells of a 2x2 grid'),
        ((32, 32), 0.5, 'hides 0 of the 1 cells of a 1x1 grid'),
    ],
)
def test_refuses_a_ratio_that_leaves_no_cell(make_mixmim, size, ratio, message):
    with pytest.raises(ValueError, match=message):
        make_mixmim(mask_ratio=ratio).loss(torch.rand(2, 3, *size))


def test_refuses_a_ratio_that_leaves_a_partner_no_cell(make_mixmim):
    model = make_mixmim(num_images=3, mask_ratio=0.25)
    with pytest.raises(ValueError, match='hides 1 of the 4 .* need at least 2'):
        model.loss(torch.rand(3, 3, 64, 64))


def test_refuses_a_size_that_the_stride_does_not_divide(make_mixmim):
    with pytest.raises(ValueError, match='100x100 is not divisible by the stride 32'):
        make_mixmim().loss(torch.rand(2, 3, 100, 100))


def test_refuses_several_views(make_mixmim):
    with pytest.raises(ValueError, match='got a list.*default_collate.*one view'):
        make_mixmim().loss([torch.rand(2, 3, 64, 64)] * 2)


@pytest.mark.parametrize('mask', [[[[1, 0], [0, 1]]], np.ones((1, 2, 2))])
def test_refuses_masks_that_are_no_tensors(make_mixmim, mask):
    for method in ('loss', 'reconstruct'):
        with pytest.raises(UserError, match='A mask must be a tensor.*got <class'):
            getattr(make_mixmim(), method)(torch.rand(2, 3, 64, 64), mask=mask)


@pytest.mark.parametrize('dtype', [torch.uint8, torch.int64])
def test_refuses_integers(make_mixmim, dtype):
    images = torch.ones(2, 3, 64, 64, dtype=dtype)
    model = make_mixmim()
    with pytest.raises(UserError, match=f'got {dtype}: .*data_preprocessor') as error:
        model.loss(images)
    advice = str(error.value).partition('by ')[2].rstrip('.')
    normalised = eval(advice, dict(model=model, images=images))
    assert normalised.is_floating_point()


def test_training_on_a_batch_of_one_warns(make_mixmim):
    """It is mixed with itself; other halves stay hidden from each other."""
    model = make_mixmim()
    with pytest.warns(UserWarning, match='at least 2 images per process'):
        assert model.loss(torch.rand(1, 3, 64, 64))['loss'].isfinite()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        model.loss(torch.rand(2, 3, 64, 64))
        model.eval().loss(torch.rand(1, 3, 64, 64))
        make_mixmim(filling='mask_token').loss(torch.rand(1, 3, 64, 64))
