import pytest
import torch
from torch import nn

from mmmixmim.models import MixMIMPretrainDecoder, TokenOwnership


@pytest.fixture
def decoder():
    return MixMIMPretrainDecoder(
        encoder_channels=16,
        in_channels=2,
        stride=8,
        img_size=32,
        decoder_embed_dims=32,
        decoder_depth=2,
        decoder_num_heads=4,
    )


@pytest.mark.parametrize('masks', [1, 3])
@pytest.mark.parametrize('grid', [(4, 4), (3, 6)])
def test_predicts_the_pixels_of_each_cell(decoder, grid, masks):
    maps, mask = torch.randn(3, 16, *grid), torch.rand(masks, *grid) < 0.5
    pred = decoder(maps, mask)
    assert pred.shape == (3, grid[0] * grid[1], 8 * 8 * 2)
    assert torch.equal(pred, decoder((torch.rand(3, 8, 1, 1), maps), mask))


def test_no_guess_sees_its_own_cell(decoder):
    mask = torch.tensor([[[1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]])
    maps = torch.randn(1, 16, 4, 4, requires_grad=True)
    owner = mask.flatten()
    for cell in range(16):
        (grad,) = torch.autograd.grad(decoder(maps, mask)[0, cell].sum(), maps)
        seen = grad.flatten(2)[0].abs().sum(0) > 0
        # A guess is made from all tokens of the image that the cell does not show.
        assert torch.equal(seen, owner != owner[cell])


def test_defaults_are_the_authors():
    with torch.device('meta'):
        decoder = MixMIMPretrainDecoder()
    assert len(decoder.decoder_blocks) == 8 and decoder.mask_token.shape[-1] == 512
    assert {block.attn.num_heads for block in decoder.decoder_blocks} == {16}
    assert decoder.decoder_blocks[0].mlp.fc1.out_features == 2048


def test_recompute_reaches_the_blocks():
    with torch.device('meta'):
        decoder = MixMIMPretrainDecoder(decoder_depth=1, recompute='blocks')
    assert decoder.decoder_blocks[0].recompute == 'blocks'


def test_residual_stream_is_float32_under_autocast(decoder):
    types = []
    decoder.decoder_blocks[0].register_forward_pre_hook(
        lambda module, args: types.append(args[0].dtype)
    )
    with torch.autocast('cpu', torch.bfloat16):
        decoder(torch.randn(2, 16, 4, 4), torch.eye(4)[None])
    assert types == [torch.float32]


def test_mlp_ratio_reaches_the_blocks():
    decoder = MixMIMPretrainDecoder(decoder_depth=1, mlp_ratio=2)
    assert decoder.decoder_blocks[0].mlp.fc1.out_features == 1024


def test_initialisation_follows_the_authors(decoder):
    assert decoder.mask_token.std().item() == pytest.approx(0.02, rel=0.4)
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Linear):
            bound = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.9 * bound < module.weight.abs().max() <= bound, name
            assert not module.bias.any(), name
        elif isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-5


def test_position_embedding_is_resized_on_loading(decoder):
    wide = MixMIMPretrainDecoder(
        encoder_channels=16,
        in_channels=2,
        stride=8,
        img_size=(16, 48),
        decoder_embed_dims=32,
        decoder_depth=2,
        decoder_num_heads=4,
    )
    wide.load_state_dict(decoder.state_dict())
    maps, mask = torch.randn(2, 16, 2, 6), torch.rand(1, 2, 6) < 0.5
    torch.testing.assert_close(wide(maps, mask), decoder(maps, mask))


def test_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match='decoder_embed_dims 30.*decoder_num_heads 4'):
        MixMIMPretrainDecoder(decoder_embed_dims=30, decoder_num_heads=4)


def test_refuses_a_mask_of_another_grid(decoder):
    with pytest.raises(ValueError, match=r'\(1 or 2, 4, 4\)'):
        decoder(torch.rand(2, 16, 4, 4), TokenOwnership(torch.ones(1, 2, 2)))
