import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import save_checkpoint
from torch import nn

from mmmixmim.models import MixMIMTransformer, TokenOwnership
from mmmixmim.models.layers import WindowLayout
from mmmixmim.validation import UserError

from ...conftest import TINY_ARCH

ALL_STAGES = (0, 1, 2, 3)
WIDE = [(4, 8), (4, 8), (4, 8), (2, 4)]
TALL = [(8, 4), (8, 4), (8, 4), (4, 2)]


@pytest.mark.parametrize(
    'height, width',
    [(64, 64), (96, 160), (32, 128), (224, 32), (75, 94), (101, 33), (17, 5)],
)
def test_maps_have_their_strides(make_backbone, height, width):
    """Of any size, also one that the stride does not divide."""
    maps = make_backbone(out_indices=ALL_STAGES)(torch.rand(2, 3, height, width))
    for i, feature in enumerate(maps):
        stride = 4 * 2**i
        shape = (-(-height // stride), -(-width // stride))
        assert feature.shape == (2, 16 * 2**i, *shape)
        assert feature.isfinite().all()


def test_padding_of_patches_is_that_of_the_images(make_backbone):
    """What patches lack is zeros, as a data preprocessor pads."""
    model = make_backbone(out_indices=ALL_STAGES).eval()
    images = torch.randn(2, 3, 62, 61)
    padded = torch.nn.functional.pad(images, (0, 3, 0, 2))
    for small, large in zip(model(images), model(padded), strict=True):
        assert torch.equal(small, large)


def test_odd_maps_are_padded_before_merging(make_backbone):
    """The last row, half of it padding, depends on the last row of patches only."""
    model = make_backbone(out_indices=(1,), window_size=1).eval()
    image = torch.randn(1, 3, 36, 32)  # 9 rows of patches, 5 after the merging
    (odd,) = model(image)
    assert odd.shape[2:] == (5, 4)
    changed = image.clone()
    changed[:, :, :32] += 1
    (other,) = model(changed)
    assert torch.equal(odd[:, :, 4], other[:, :, 4])
    assert not torch.allclose(odd[:, :, :4], other[:, :, :4])


def test_dense_last_map_is_that_of_the_classifier(make_backbone, tmp_path):
    """At the size of pretraining, with the pretrained weights."""
    classifier = make_backbone(img_size=224, window_size=None)
    save_checkpoint(dict(state_dict=classifier.state_dict()), str(tmp_path / 'c.pth'))
    dense = make_backbone(
        img_size=224,
        window_size=None,
        out_indices=ALL_STAGES,
        shift_windows=False,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'c.pth')),
    )
    dense.init_weights()
    images = torch.randn(2, 3, 224, 224)
    assert torch.equal(dense(images)[-1], classifier(images)[-1])


def test_shifted_windows_change_only_stages_that_they_do_not_cover(make_backbone):
    plain = make_backbone(out_indices=ALL_STAGES).eval()
    shifted = make_backbone(out_indices=ALL_STAGES, shift_windows=True).eval()
    shifted.load_state_dict(plain.state_dict())
    # At 32 pixels each stage's window covers its map.
    images = torch.randn(2, 3, 32, 32)
    for a, b in zip(plain(images), shifted(images), strict=True):
        assert torch.equal(a, b)


def test_shifted_windows_exchange_information(make_backbone, tiny_arch):
    """A pixel reaches the next window in the second block of a stage."""
    arch = tiny_arch | dict(depths=[2, 1, 2, 1])
    images = torch.randn(1, 3, 64, 64)
    changed = images.clone()
    changed[:, :, :4, 28:32] += 1  # the last patch of the first window of 8x8 patches
    reached = {}
    for shift in (False, True):
        model = make_backbone(arch=arch, out_indices=(0,), shift_windows=shift).eval()
        (before,), (after,) = model(images), model(changed)
        reached[shift] = not torch.equal(before[..., 8:], after[..., 8:])
    assert reached == {False: False, True: True}


def test_shifted_windows_hide_the_other_image(make_backbone, tiny_arch):
    arch = tiny_arch | dict(depths=[2, 2, 2, 1])
    model = make_backbone(arch=arch, out_indices=(0,), shift_windows=True).eval()
    mask = torch.tensor([[[1, 0], [0, 1]]])
    images = torch.randn(2, 3, 64, 64)
    other = images.clone()
    other[1] += 1
    rows = TokenOwnership(mask).at(16, 16)[0] == 0
    (before,), (after,) = model(images, mask), model(other, mask)
    assert torch.equal(before[0][:, rows], after[0][:, rows])


@pytest.mark.parametrize(
    'patch_size, stages, channels', [(2, 3, 1), (8, 2, 4), (4, 1, 3)]
)
def test_stages_patch_size_and_channels_are_free(patch_size, stages, channels):
    stride = patch_size * 2 ** (stages - 1)
    model = MixMIMTransformer(
        dict(embed_dims=8, depths=[1] * stages, num_heads=[2] * stages),
        img_size=4 * stride,
        patch_size=patch_size,
        in_channels=channels,
    )
    assert model.stride == stride
    images = torch.rand(2, channels, 4 * stride, 6 * stride)
    mask = torch.rand(1, 4, 6) < 0.5
    assert model(images, mask)[-1].shape == (2, 8 * 2 ** (stages - 1), 4, 6)


@pytest.mark.parametrize('masks', [1, 2])
@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
def test_visible_tokens_do_not_see_the_other_image(make_backbone, size, masks):
    model = make_backbone(out_indices=ALL_STAGES)
    grid = (size[0] // 32, size[1] // 32)
    mask = torch.rand(masks, *grid) < 0.5
    mask[0, 0, :2] = torch.tensor([True, False])
    images = torch.randn(2, 3, *size)
    before = model(images, mask)

    # What image 1 shows in the mixture of image 0 changes beyond recognition.
    other = images.clone()
    other[1] = 10 * torch.randn(3, *size)
    own = ~mask[0]
    after = model(other, mask)
    for stage, (old, new) in enumerate(zip(before, after, strict=True)):
        scale = 2 ** (3 - stage)
        rows = own.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        assert torch.equal(old[0][:, rows], new[0][:, rows]), f'leak at stage {stage}'
        assert not torch.allclose(old[0][:, ~rows], new[0][:, ~rows])


def test_hidden_pixels_reach_nothing_in_their_own_mixture(make_backbone):
    model = make_backbone(out_indices=ALL_STAGES)
    mask = torch.tensor([[[1, 0], [0, 1]]])
    images = torch.randn(2, 3, 64, 64, requires_grad=True)
    sum(feature[0].sum() for feature in model(images, mask)).backward()
    hidden = mask[0].repeat_interleave(32, 0).repeat_interleave(32, 1).bool()
    assert (images.grad[0][:, hidden] == 0).all()
    assert (images.grad[0][:, ~hidden] != 0).any()


@pytest.mark.parametrize('masks', [1, 3])
@pytest.mark.parametrize('size', [(64, 64), (96, 160)])
def test_empty_mask_is_the_plain_forward(make_backbone, size, masks):
    model = make_backbone(out_indices=ALL_STAGES)
    images = torch.randn(3, 3, *size)
    mask = torch.zeros(masks, size[0] // 32, size[1] // 32)
    for masked, plain in zip(model(images, mask), model(images), strict=True):
        torch.testing.assert_close(masked, plain)


def test_shared_mask_is_the_same_mask_for_each_image(make_backbone):
    model = make_backbone(out_indices=ALL_STAGES)
    images, mask = torch.randn(3, 3, 64, 96), torch.rand(1, 2, 3) < 0.5
    shared = model(images, mask)
    repeated = model(images, mask.expand(3, -1, -1))
    for a, b in zip(shared, repeated, strict=True):
        torch.testing.assert_close(a, b)


def test_each_image_of_a_batch_is_computed_by_itself(make_backbone):
    model = make_backbone(img_size=96, window_size=[6, 6, 6, 3])
    images = torch.randn(3, 3, 96, 160)
    for image, feature in zip(images, model(images)[0], strict=True):
        torch.testing.assert_close(model(image[None])[0][0], feature)


def test_single_image_is_its_own_partner(make_backbone):
    model = make_backbone()
    image, mask = torch.randn(1, 3, 64, 64), torch.tensor([[[1, 0], [0, 1]]])
    twice = model(image.expand(2, -1, -1, -1), mask)[0]
    torch.testing.assert_close(model(image, mask)[0], twice[:1])


def test_ownership_serves_as_mask(make_backbone):
    model = make_backbone()
    images, mask = torch.randn(2, 3, 64, 64), torch.tensor([[[1, 0], [0, 1]]])
    assert torch.equal(model(images, mask)[0], model(images, TokenOwnership(mask))[0])


@pytest.mark.parametrize('frozen', [-1, 1])
def test_activation_checkpointing_runs_blocks_twice_and_changes_nothing(
    make_backbone, frozen
):
    images, mask = torch.randn(2, 3, 64, 64), torch.tensor([[[1, 0], [0, 1]]])
    plain = make_backbone(frozen_stages=frozen)
    saving = make_backbone(frozen_stages=frozen, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    runs = []
    for stage in saving.layers[max(0, frozen) :]:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda block, *_: runs.append(block))
    for model in (plain, saving):
        model(images, mask)[0].square().mean().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert len(runs) == 2 * len(set(runs)) == 2 * (5 if frozen == -1 else 4)


def test_drop_rates_reach_their_layers(make_backbone):
    model = make_backbone(drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.4)
    blocks = [block for stage in model.layers for block in stage.blocks]
    assert model.pos_drop.p == 0.1
    for block in blocks:
        assert block.mlp.drop1.p == block.mlp.drop2.p == block.attn.proj_drop.p == 0.1
        assert block.attn.attn_drop == 0.2
    rates = [getattr(block.drop_path, 'drop_prob', 0) for block in blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    images = torch.randn(2, 3, 64, 64)
    position_drop_only = make_backbone(drop_rate=0.5)
    for module in position_drop_only.layers.modules():
        module.training = False
    assert not torch.equal(position_drop_only(images)[0], position_drop_only(images)[0])


def test_options_of_the_blocks(make_backbone):
    block = make_backbone(qkv_bias=False, mlp_ratio=2).layers[0].blocks[0]
    assert block.attn.qkv.bias is None and block.mlp.fc1.out_features == 32
    assert make_backbone().layers[0].blocks[0].mlp.fc1.out_features == 64


def test_stages_above_the_last_output_rest(make_backbone):
    model = make_backbone(out_indices=(0, 1))
    model.layers[2].register_forward_pre_hook(lambda *_: pytest.fail('stage 2 ran'))
    sum(feature.sum() for feature in model(torch.rand(1, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_authors_index_buffers_are_ignored_on_loading(make_backbone):
    model = make_backbone()
    state = model.state_dict()
    state['layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(4, 4)
    model.load_state_dict(state, strict=True)


def test_weights_of_a_map_and_window_that_are_not_square(make_backbone, tmp_path):
    """Sizes with as many positions and rows are told apart, also from a file."""
    wide = make_backbone(img_size=(64, 128), window_size=WIDE)
    torch.save(dict(state_dict=wide.state_dict()), tmp_path / 'wide.pth')
    tall = make_backbone(img_size=(128, 64), window_size=TALL)
    tall.load_state_dict(
        torch.load(tmp_path / 'wide.pth', weights_only=True)['state_dict']
    )
    expected = torch.nn.functional.interpolate(
        wide.absolute_pos_embed.view(1, 16, 32, 16).permute(0, 3, 1, 2),
        (32, 16),
        mode='bicubic',
    )
    torch.testing.assert_close(
        tall.absolute_pos_embed, expected.flatten(2).transpose(1, 2)
    )
    name = 'layers.0.blocks.0.attn.relative_position_bias_table'
    table = wide.get_parameter(name).t().reshape(1, 1, 7, 15)
    expected = torch.nn.functional.interpolate(table, (15, 7), mode='bicubic')
    torch.testing.assert_close(tall.get_parameter(name).flatten(), expected.flatten())

    large = make_backbone(img_size=(128, 256), window_size=WIDE)
    large.load_state_dict(wide.state_dict())
    assert torch.equal(large.get_parameter(name), wide.get_parameter(name))


@pytest.mark.parametrize(
    'kind', ['', 'mmengine.', 'mmengine.model.', 'mmengine.model.weight_init.']
)
def test_pretrained_without_a_file_says_what_to_set(make_backbone, kind):
    """By the names that configs give it, also those that import the class."""
    kind += 'PretrainedInit' if 'model' in kind else 'Pretrained'
    model = make_backbone(init_cfg=dict(type=kind, checkpoint=''))
    with pytest.raises(ValueError, match='init_cfg.checkpoint=FILE.*init_cfg=None'):
        model.init_weights()


@pytest.mark.parametrize('mask', [None, torch.tensor([[[1, 0], [0, 1]]])])
def test_empty_batch(make_backbone, mask):
    assert make_backbone()(torch.rand(0, 3, 64, 64), mask)[0].shape == (0, 128, 2, 2)


def test_drop_path_drops_whole_images(make_backbone):
    model = make_backbone(drop_path_rate=0.9, window_size=4)
    assert model.layers[0].blocks[0].drop_path.__class__ is nn.Identity
    block = model.layers[-1].blocks[-1].train()
    tokens = torch.randn(50, 4, 128)
    layout = WindowLayout((2, 2), (2, 2), None, tokens.device)
    kept = (block(tokens, layout) != tokens).flatten(1)
    assert all(image.all() or not image.any() for image in kept)
    assert 0 < kept.all(1).sum() < 50


@pytest.mark.parametrize('frozen', [-1, 0, 2, 4])
def test_frozen_stages(make_backbone, frozen):
    model = make_backbone(frozen_stages=frozen, out_indices=ALL_STAGES).train()
    parts = [model.patch_embed, *model.layers]
    norms = [model.norm0, model.norm1, model.norm2, model.norm]
    for i, part in enumerate(parts):
        expected = i > frozen
        modules = [part, norms[i - 1]] if i else [part]
        for module in modules:
            assert module.training == expected
            assert all(p.requires_grad == expected for p in module.parameters())


def test_out_indices_count_from_the_end(make_backbone):
    assert make_backbone(out_indices=-1).out_indices == (3,)
    model = make_backbone(out_indices=(-2, 0))
    assert model.out_indices == (0, 2)
    assert [len(feature[0]) for feature in model(torch.rand(1, 3, 64, 64))] == [16, 64]


def test_initialisation_follows_the_authors():
    model = MixMIMTransformer(
        dict(embed_dims=64, depths=[1, 1], num_heads=[4, 4]), img_size=64
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.98 * bound < module.weight.abs().max() <= bound, name
            assert module.bias is None or not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any(), name
            assert module.eps == 1e-5
    table = model.layers[0].blocks[0].attn.relative_position_bias_table
    assert (
        table.std().item() == pytest.approx(0.02, rel=0.1) and table.abs().max() > 0.04
    )
    assert model.absolute_pos_embed.abs().max() == 1
    assert not model.absolute_pos_embed.requires_grad


def test_init_weights_does_not_overwrite_loaded_weights(make_backbone, tmp_path):
    source = make_backbone()
    nn.init.normal_(source.absolute_pos_embed)
    path = str(tmp_path / 'pretrained.pth')
    save_checkpoint(dict(state_dict=source.state_dict()), path)

    loaded = make_backbone(init_cfg=dict(type='Pretrained', checkpoint=path))
    loaded.init_weights()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name

    again = make_backbone()
    again.load_state_dict(source.state_dict())
    again.init_weights()
    for name, value in again.state_dict().items():
        assert torch.equal(value, source.state_dict()[name]), name


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(arch='giant'), "Unknown arch 'giant'.*base, large, huge"),
        (dict(arch=None), 'Unknown arch None'),
        (dict(arch=dict(embed_dims=8, depths=[1])), 'lacks num_heads'),
        (
            dict(arch=dict(embed_dims=8, depths=[1], num_heads=[1], width=3)),
            'the unknown width',
        ),
        (
            dict(arch=dict(embed_dims=8, depths=[1, 1], num_heads=[1])),
            '2 depths.*1 num_heads',
        ),
        (
            dict(arch=dict(embed_dims=8, depths=[1, 1], num_heads=[2, 3])),
            'Stage 1 has 16 channels.*3 heads do not divide',
        ),
        (
            dict(arch=dict(embed_dims=8, depths=[1, 0], num_heads=[2, 2])),
            r'depths\[1\] must be a positive int, got 0',
        ),
        (
            dict(arch=dict(embed_dims=6, depths=[1], num_heads=[2]), window_size=8),
            'divisible by 4, got 6',
        ),
        (dict(window_size=[8, 8]), 'each of the 4 stages, got 2'),
        (dict(window_size=[8, 8, 8, 0]), 'window_size must be.*got 0'),
        (dict(window_size=8.5), 'window_size must be.*got 8.5'),
        (dict(patch_size=0), 'patch_size must be a positive int, got 0'),
        (dict(in_channels=0), 'in_channels must be a positive int, got 0'),
        (
            dict(arch=dict(embed_dims=-8, depths=[1], num_heads=[1])),
            'embed_dims must be a positive int, got -8',
        ),
        (
            dict(arch=dict(embed_dims=8, depths=[1], num_heads=2)),
            'num_heads must be a list, got 2',
        ),
        (dict(img_size=100), 'img_size 100x100 is not divisible.*32.*128x128'),
        (dict(img_size=(64, 64, 3)), r'img_size must be.*\(64, 64, 3\)'),
        (dict(out_indices=(4,)), r'stages 0 to 3, got \(4,\)'),
        (dict(out_indices=()), r'stages 0 to 3, got \(\)'),
        (dict(out_indices=None), 'stages 0 to 3, got None'),
        (dict(out_indices=(0, 1.5)), r'stages 0 to 3, got \(0, 1.5\)'),
        (dict(frozen_stages=5), 'between -1 and 4.*got 5'),
        (dict(frozen_stages='1'), "between -1 and 4.*got '1'"),
        (dict(frozen_stages=None), 'between -1 and 4.*got None'),
        (dict(mlp_ratio='4'), "mlp_ratio must be a positive number, got '4'"),
        (dict(mlp_ratio=0), 'mlp_ratio must be a positive number, got 0'),
        (dict(mlp_ratio=0.01), 'mlp_ratio 0.01 gives.* 0 hidden'),
        (dict(drop_path_rate=None), 'drop_path_rate must be.*got None'),
        (dict(drop_path_rate=1.5), 'drop_path_rate must be.*got 1.5'),
    ],
)
def test_refuses_arguments_that_make_no_model(make_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(**arguments)


@pytest.mark.parametrize('shape', [(1, 1, 64, 64), (3, 64, 64)])
def test_refuses_images_of_other_channels(make_backbone, shape):
    with pytest.raises(ValueError, match=r'\(B, 3, H, W\), got ') as error:
        make_backbone()(torch.rand(shape))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    'size, message',
    [
        ((64, 50), '64x50 is not divisible by the stride 32.*64x64'),
        ((16, 64), '16x64 is not divisible by the stride 32'),
    ],
)
def test_refuses_to_mix_images_that_cells_do_not_divide(make_backbone, size, message):
    with pytest.raises(ValueError, match=message):
        make_backbone()(torch.rand(2, 3, *size), torch.ones(1, 2, 2))


@pytest.mark.parametrize(
    'mask, message',
    [
        (torch.ones(1, 4, 4), r'\(1 or 2, 2, 2\).*got \(1, 4, 4\)'),
        (torch.ones(3, 2, 2), r'\(1 or 2, 2, 2\).*got \(3, 2, 2\)'),
        (torch.full((1, 2, 2), 0.5), 'got the value 0.5'),
    ],
)
def test_refuses_masks_that_do_not_fit(make_backbone, mask, message):
    with pytest.raises(ValueError, match=message):
        make_backbone()(torch.rand(2, 3, 64, 64), mask)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(window_size=[8, 8, 8, 2]), r'window_size\[2\] is 8x8, .* 4x4 tokens at'),
        (dict(window_size=[(8, 17), 8, 4, 2]), r'window_size\[0\] is 8x17.* it 8x16'),
        (
            dict(img_size=(64, 128), window_size=[16, 8, 4, 4]),
            r'window_size\[3\] is 4x4.* stage 3, 2x4 .* 64x128: make it 2x4 or',
        ),
    ],
)
def test_refuses_windows_that_do_not_fit_their_maps(make_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(**arguments)


@pytest.mark.parametrize('window_size, last', [(8, 2), (1, 1), (None, 2)])
def test_windows_for_all_stages_shrink_to_small_maps(make_backbone, window_size, last):
    model = make_backbone(window_size=window_size)
    assert model.layers[-1].window == (last, last)


def test_pretrained_of_mmsegmentation_loads_the_encoder(tmp_path):
    """mmsegmentation passes ``pretrained`` of the model on to its backbone."""
    pytest.importorskip('mmseg')
    from mmseg.models import EncoderDecoder

    source = MixMIMTransformer(TINY_ARCH, img_size=64)
    file = tmp_path / 'encoder.pth'
    torch.save(dict(state_dict=source.state_dict()), file)
    model = EncoderDecoder(
        backbone=ConfigDict(
            type='mmmixmim.MixMIMTransformer', arch=TINY_ARCH, img_size=64
        ),
        decode_head=dict(
            type='mmseg.FCNHead', in_channels=128, channels=8, num_classes=2
        ),
        pretrained=str(file),
    )
    model.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    with pytest.raises(UserError, match='leave one of them out'):
        MixMIMTransformer(TINY_ARCH, pretrained='a.pth', init_cfg=dict(type='Normal'))
