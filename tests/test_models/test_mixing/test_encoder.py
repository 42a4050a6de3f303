"""check_encoder finds what is wrong with an encoder, and where."""

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from mmmixmim.models import MixMIM, MixMIMTransformer, check_encoder
from mmmixmim.validation import UserError

ARCH = dict(embed_dims=16, depths=[2, 2, 2], num_heads=[1, 2, 4])


def ours(**kwargs):
    kwargs = dict(arch=ARCH, img_size=32, window_size=4, shift_windows=True) | kwargs
    return MixMIMTransformer(**kwargs)


def test_our_encoder():
    check_encoder(ours)
    check_encoder(lambda: ours(with_cp=True))


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
        if self.fault == 'overlap':
            self.patch_embed.proj = nn.Conv2d(3, 16, kernel_size=6, stride=4, padding=1)
        if self.fault == 'unused':
            self.extra = nn.Linear(2, 2)

    def forward(self, x, mask=None):
        (maps,) = super().forward(x, None if self.fault == 'unmixed' else mask)
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
        ('overlap', r'hides.*mixed is patch_embed\.proj: its patches must not overlap'),
        ('unmixed', 'does not show the partner.*ownership.mix'),
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


def logged(encoder, caplog):
    """What building the algorithm logs."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    MixMIM(encoder)
    logger.removeHandler(caplog.handler)
    return caplog.messages


@pytest.mark.parametrize(
    'norm', [nn.BatchNorm1d(16), nn.GroupNorm(2, 16), nn.InstanceNorm1d(16)], ids=str
)
def test_norms_over_owners_are_named(norm, caplog):
    encoder = ours()
    encoder.layers[0].blocks[1].norm2 = norm
    warnings = logged(encoder, caplog)
    (message,) = [each for each in warnings if 'statistics' in each]
    name = f'layers.0.blocks.1.norm2 of MixMIMTransformer is a {type(norm).__name__}'
    assert name in message


def test_layer_norms_are_fine(caplog):
    assert not any('statistics' in each for each in logged(ours(), caplog))
