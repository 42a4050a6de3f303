"""check_encoder finds what is wrong with an encoder, and where."""

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmmixmim.models import (
    MixMIM,
    MixMIMSwinTransformer,
    MixMIMTransformer,
    check_encoder,
)
from mmmixmim.models.mixing import TokenOwnership
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


class Small(nn.Module):
    """Two stages, with attention over the map."""

    fault = None

    def __init__(self):
        super().__init__()
        self.stride, self.img_size = 8, (32, 32)
        self.in_channels, self.out_channels = 3, [8, 16]
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.merge = nn.Conv2d(8, 16, 2, stride=2)
        if self.fault == 'overlap':
            self.embed = nn.Conv2d(3, 8, 6, stride=4, padding=1)
        if self.fault == 'layer norm':
            self.norm = nn.LayerNorm((16, 4, 4))
        if self.fault in ('identity', 'scale'):
            self.blur = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
            nn.init.dirac_(self.blur.weight, groups=8)
            self.scale = nn.Parameter(torch.ones(8))
            if self.fault == 'scale':
                self.blur.reset_parameters()
                self.scale.data.fill_(1e-12)
        if self.fault == 'fixed size':
            self.position = nn.Parameter(torch.rand(8, 8, 8))
        if self.fault == 'positive':
            self.scale = nn.Parameter(torch.full((1,), 0.01))
        if isinstance(self.fault, dict):
            vars(self).update(self.fault)

    def forward(self, images, ownership=None):
        if self.fault == 'always mixed':
            assert ownership is not None
        maps = self.embed(images).permute(0, 2, 3, 1)
        if self.fault == 'fixed size':
            maps = maps + self.position
        if self.fault == 'checkpoint':
            maps = checkpoint(ownership.mix, maps, use_reentrant=False)
        elif ownership is not None and self.fault != 'unmixed':
            maps = ownership.mix(maps)
        if self.fault == 'positive':
            maps = maps * self.scale.sqrt()
        if self.fault == 'unmerged':
            maps = self.merge_by_itself(maps, ownership)
        if self.fault in ('identity', 'scale'):
            blurred = self.blur(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            maps = maps + self.scale * blurred
        if self.fault == 'batches of 4' and len(maps) > 3:
            maps = maps + maps.flip(0)
        maps = self.merge(maps.permute(0, 3, 1, 2))
        x = maps.flatten(2).transpose(1, 2)
        logits = x @ x.transpose(1, 2)
        if ownership is not None:
            owners = ownership.at(*maps.shape[2:]).flatten(1)
            seen = ownership.same_owner(owners)
            if self.fault == 'always apart':
                seen = owners.unsqueeze(1) == owners.unsqueeze(2)
            if self.fault == 'blind':
                seen = torch.eye(x.shape[1], dtype=torch.bool)
            logits = logits.masked_fill(~seen, float('-inf'))
        maps = (x + logits.softmax(-1) @ x).transpose(1, 2).unflatten(2, maps.shape[2:])
        if self.fault == 'channels last':
            maps = maps.permute(0, 2, 3, 1)
        if self.fault == 'class token':
            return ([maps, maps.mean((2, 3))],)
        if self.fault == 'two maps':
            return maps, maps
        return maps if self.fault == 'no tuple' else (maps,)

    def merge_by_itself(self, maps, ownership):
        if ownership is None:
            return maps
        owners = ownership.at(*maps.shape[1:3]).unsqueeze(-1)
        first, *others = ownership.split(maps)
        maps = torch.where(owners == 0, first, sum(others))
        return maps + maps.mean((1, 2), keepdim=True)


class WithoutOwnership(Small):
    def forward(self, images):
        return super().forward(images)


class WithoutDefault(Small):
    def forward(self, images, ownership):
        return super().forward(images, ownership)


def faulty(fault):
    return type('Small', (Small,), dict(fault=fault))


@pytest.mark.parametrize(
    'fault, message',
    [
        (dict(out_channels=[8, 64]), r'is \(3, 16, 4, 5\).*channels of the last map'),
        (dict(out_channels=[4, 16]), 'mixes maps of 8 channels.*out_channels is 4'),
        ('no tuple', 'must return a tuple of maps'),
        ('class token', 'must return a tuple of maps'),
        ('channels last', r'has \(5, 16\) tokens.*maps must be \(B, C, h, w\)'),
        ('two maps', r'have \[16, 16\] channels, but its out_channels are \[8, 16\]'),
        ('identity', 'partner is blur: tokens'),
        ('scale', 'partner is blur: tokens'),
        (
            'unmerged',
            'not found, since a split',
        ),
        ('batches of 4', 'lets information of the partner reach'),
        ('fixed size', r'does not take images of 32x40 pixels: pass size=\(32, 32\)'),
        ('blind', 'no token sees another one of its own image'),
        ('always apart', 'although they are not isolated'),
    ],
    ids=str,
)
def test_faults_of_a_small_encoder_are_found(fault, message):
    with pytest.raises(UserError, match=message):
        check_encoder(faulty(fault))


def test_a_small_encoder_without_a_fault():
    check_encoder(Small)
    check_encoder(faulty('fixed size'), size=(32, 32))
    check_encoder(faulty('positive'))


@pytest.mark.parametrize('build', [Small(), dict(type='MixMIMHiViT')], ids=type)
def test_what_builds_no_encoder_is_refused(build):
    with pytest.raises(UserError, match='pass its class, or a function'):
        check_encoder(build)


@pytest.mark.parametrize(
    'fault, message',
    [
        ('unmixed', r'Small did not call mix\(\) of the ownership that it was given'),
        ('no tuple', 'Small must return a tuple of maps'),
        ('class token', 'Small must return a tuple of maps'),
        ('channels last', r'maps must be \(B, C, h, w\)'),
    ],
)
def test_training_refuses_it_too(fault, message):
    model = MixMIM(faulty(fault)())
    with pytest.raises(UserError, match=message):
        model.loss(torch.rand(2, 3, 32, 32))


def test_mixing_may_be_recomputed_and_compiled():
    model = MixMIM(faulty('checkpoint')())
    images, mask = torch.rand(2, 3, 32, 32), torch.rand(2, 4, 4) < 0.5
    wanted = model.loss(images, mask=mask)['loss']
    compiled = torch.compile(model.loss, backend='aot_eager', fullgraph=True)
    ownership = TokenOwnership(mask)
    assert torch.isclose(compiled(images, mask=ownership)['loss'], wanted)


class Wrapped(nn.Module):
    """Has what training asks for, but not all that an encoder tells."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.stride, self.in_channels = encoder.stride, encoder.in_channels

    def forward(self, images, ownership=None):
        return self.encoder(images, ownership)


def test_an_encoder_may_be_wrapped_once_the_model_is_built():
    model, images = MixMIM(Small()), torch.rand(2, 3, 32, 32)
    mask = torch.rand(2, 4, 4) < 0.5
    wanted = model.loss(images, mask=mask)['loss']
    model.backbone = Wrapped(model.backbone)
    assert model.loss(images, mask=mask)['loss'] == wanted


def test_plain_images_are_checked_without_a_stock_class():
    with pytest.raises(AssertionError):  # to find a size would raise it, too
        check_encoder(faulty('always mixed'), size=(32, 32))


@pytest.mark.parametrize(
    'fault, message',
    [
        (dict(stride=(8, 8)), r'stride of Small must be a positive int, got \(8, 8\)'),
        (dict(in_channels=None), 'in_channels of Small must be a positive int'),
        (dict(img_size='32'), r'img_size of Small must be a positive int or \(height'),
        (dict(out_channels=16), 'out_channels of Small must list the channels of each'),
        (dict(out_indices=(0, 1)), r'last map only.*got \(0, 1\)'),
    ],
    ids=str,
)
def test_attributes_of_the_wrong_kind_are_named(fault, message):
    with pytest.raises(UserError, match=message):
        MixMIM(faulty(fault)())


@pytest.mark.parametrize('kind', [WithoutOwnership, WithoutDefault])
def test_forward_must_take_an_ownership_or_none(kind):
    with pytest.raises(UserError, match=r'forward\(images, ownership=None\)'):
        MixMIM(kind())


def test_all_that_a_stock_class_lacks_is_named(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    lacks = 'no stride, img_size, in_channels, out_channels. Use .*docs/extending.md'
    with pytest.raises(UserError, match=lacks):
        MixMIM(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))
    logger.removeHandler(caplog.handler)
    norms, patches = caplog.messages
    assert 'statistics' in norms and 'unless it stays in eval mode' in norms
    assert 'kernel of (3, 3) at a stride of (1, 1)' in patches


@pytest.mark.parametrize('indices', [-1, 1, [-1], (1,)], ids=str)
def test_the_last_map_may_be_counted_from_the_end(indices):
    MixMIM(faulty(dict(out_indices=indices))())


@pytest.mark.parametrize('indices', [-1, 2, (-1,)], ids=str)
def test_swin_counts_from_the_end_too(indices):
    arch = dict(embed_dims=16, depths=[1, 1, 2], num_heads=[1, 2, 4])
    options = dict(img_size=64, window_size=4, out_indices=indices)
    encoder = MixMIMSwinTransformer(arch, **options)
    assert encoder(torch.rand(1, 3, 64, 64))[0].shape == (1, 64, 4, 4)
    with pytest.raises(UserError, match='stages 0 to 2, got 3'):
        MixMIMSwinTransformer(arch, **options | dict(out_indices=3))


def test_image_size_may_be_an_int():
    check_encoder(faulty(dict(img_size=32)))


def test_size_that_the_stride_does_not_divide():
    with pytest.raises(UserError, match='36x32 is not divisible by the stride 8'):
        check_encoder(Small, size=(36, 32))


def test_stochastic_depth_is_no_fault():
    for _ in range(3):
        check_encoder(lambda: ours(drop_path_rate=0.5))


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


def test_layer_norm_over_the_map_is_named(caplog):
    warnings = logged(faulty('layer norm')(), caplog)
    assert any('norm of Small is a LayerNorm, which takes' in each for each in warnings)


def test_patches_that_overlap_are_named(caplog):
    assert not any('kernel' in each for each in logged(Small(), caplog))
    warnings = logged(faulty('overlap')(), caplog)
    assert any('embed of Small has a kernel of (6, 6) at' in each for each in warnings)


def test_layer_norms_are_fine(caplog):
    assert not any('statistics' in each for each in logged(ours(), caplog))
