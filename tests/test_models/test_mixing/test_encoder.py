"""check_encoder finds what is wrong with an encoder, and where."""

import pytest
import torch
from mmpretrain.models.backbones import SwinTransformer
from torch import nn

from mmmixmim.models import (
    MixMIM,
    MixMIMSwinTransformer,
    MixMIMTransformer,
    check_encoder,
)
from mmmixmim.validation import UserError

ARCH = dict(embed_dims=16, depths=[2, 2, 2], num_heads=[1, 2, 4])
SWIN = dict(arch=ARCH, img_size=64, window_size=4, out_indices=(2,), drop_path_rate=0.0)


def ours(**kwargs):
    kwargs = dict(arch=ARCH, img_size=32, window_size=4, shift_windows=True) | kwargs
    return MixMIMTransformer(**kwargs)


def test_our_encoder():
    check_encoder(ours)
    check_encoder(lambda: ours(with_cp=True))


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(use_abs_pos_embed=True, with_cp=True),
        dict(window_size=7, pad_small_map=True),  # windows that stick out are padded
    ],
    ids=['shifted', 'checkpointed', 'padded'],
)
def test_swin(options):
    options = SWIN | options
    check_encoder(
        lambda: MixMIMSwinTransformer(**options), lambda: SwinTransformer(**options)
    )


@pytest.mark.parametrize('arch', ['tiny', 'base'])
def test_swin_of_published_sizes_has_the_stock_parameters(arch):
    model, stock = MixMIMSwinTransformer(arch), SwinTransformer(arch)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }
    assert (model.stride, model.img_size) == (32, (224, 224))


def test_swin_learns():
    model = MixMIM(
        MixMIMSwinTransformer(**SWIN),
        dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2),
    )
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


def test_swin_refuses_what_it_cannot_mix():
    with pytest.raises(UserError, match='does not support out_after_downsample'):
        MixMIMSwinTransformer(**SWIN, out_after_downsample=True)
    model = MixMIM(MixMIMSwinTransformer(**SWIN))
    with pytest.raises(UserError, match='64x72 is not divisible by the stride 16'):
        model.loss(torch.rand(2, 3, 64, 72))
    with pytest.raises(UserError, match=r'\(1 or 2, 4, 4\).*got \(1, 2, 2\)'):
        model.loss(torch.rand(2, 3, 64, 64), mask=torch.ones(1, 2, 2))


class Broken(MixMIMTransformer):
    """An encoder with a fault behind its last norm, or in it."""

    fault = None

    def __init__(self, **kwargs):
        super().__init__(ARCH, img_size=32, window_size=4)
        if self.fault == 'conv':
            self.layers[1].blocks[1].mlp.drop2 = Blur(32)
        if self.fault == 'zeros':
            self.layers[0].blocks[0].drop_path = Blur(16, 0.0)
        if self.fault == 'batch':
            self.layers[0].blocks[0].drop_path = OverImages()
        if self.fault == 'unused':
            self.extra = nn.Linear(2, 2)

    def forward(self, x, mask=None):
        (maps,) = super().forward(x, mask)
        if self.fault == 'forward':
            maps = maps + maps.mean((2, 3), keepdim=True)
        if self.fault == 'plain' and mask is None:
            maps = maps * 1.0001
        if self.fault == 'stride':
            maps = maps[:, :, ::2, ::2]
        return (maps,)


class Blur(nn.Module):
    """Adds neighbours on the map, with a learned weight."""

    def __init__(self, dim, scale=1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), scale))

    def forward(self, x):
        return x + self.scale * x.roll(1, 1)


class OverImages(nn.Module):
    """Takes the mean over the tokens of an image."""

    def forward(self, x):
        return x + x.mean(1, keepdim=True)


@pytest.mark.parametrize(
    'fault, message',
    [
        ('conv', r'partner reach \d+ of the \d+ cells.*layers\.1'),
        ('batch', r'partner reach \d+ of the \d+ cells.*layers\.0'),
        ('zeros', r'partner reach \d+ of the \d+ cells.*layers\.0'),
        ('forward', r'partner reach.*its own forward'),
        ('stride', 'stride must be the side of a cell'),
        ('unused', 'extra.weight of Broken gets no gradient'),
        ('plain', 'does not compute what MixMIMTransformer does'),
    ],
)
def test_faults_are_found_and_named(fault, message):
    kind = type('Broken', (Broken,), dict(fault=fault))
    stock = None
    if fault == 'plain':
        stock = lambda: MixMIMTransformer(ARCH, img_size=32, window_size=4)  # noqa: E731
    with pytest.raises(UserError, match=message):
        check_encoder(kind, stock)


def test_another_parameter_than_the_stock_class_is_named():
    kind = type('Broken', (Broken,), dict(fault='unused'))
    with pytest.raises(UserError, match='extra.* is not a parameter of both'):
        check_encoder(kind, lambda: MixMIMTransformer(ARCH, img_size=32, window_size=4))


def test_pretrained_swin_drops_into_the_stock_classifier(tmp_path):
    """By MMEngine's own way to load a part of a checkpoint."""
    from mmengine.registry import init_default_scope
    from mmpretrain.registry import MODELS as STOCK

    from mmmixmim.registry import MODELS

    backbone = dict(type='MixMIMSwinTransformer', **SWIN)
    neck = dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=2)
    source = MODELS.build(dict(type='MixMIM', backbone=backbone, neck=neck))
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'swin.pth')

    init_default_scope('mmpretrain')
    init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'swin.pth'), prefix='backbone.'
    )
    backbone = dict(type='SwinTransformer', init_cfg=init_cfg, **SWIN)
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    neck = dict(type='GlobalAveragePooling')
    model = STOCK.build(
        dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)
    )
    assert type(model.backbone) is SwinTransformer
    model.init_weights()
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
