import pytest
import torch

from mmmixmim.models import MixMIMPretrainHead, TokenOwnership
from mmmixmim.registry import MODELS
from mmmixmim.validation import UserError


@pytest.fixture(params=[True, False], ids=['norm-pix', 'pixels'])
def head(request):
    return MixMIMPretrainHead(stride=4, in_channels=2, norm_pix=request.param)


def test_unpatchify_undoes_patchify(head):
    images = torch.rand(2, 2, 8, 12)
    cells = head.patchify(images)
    assert cells.shape == (2, 6, 32)
    assert torch.equal(head.unpatchify(cells, (8, 12)), images)


def test_cells_hold_their_pixels_channels_last(head):
    images = torch.rand(1, 2, 8, 12)
    second = images[0, :, :4, 4:8].permute(1, 2, 0).flatten()
    assert torch.equal(head.patchify(images)[0, 1], second)


def test_target_is_normalised_cell_by_cell():
    head = MixMIMPretrainHead(stride=4, in_channels=2)
    target = head.construct_target(5 + 3 * torch.rand(2, 2, 8, 12))
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1), torch.ones(2, 6), atol=1e-4, rtol=0)


def test_refuses_to_normalise_a_single_value():
    with pytest.raises(UserError, match='norm_pix=True.*it has a single one'):
        MixMIMPretrainHead(stride=1, in_channels=1)
    MixMIMPretrainHead(stride=1, in_channels=2)  # two values
    head = MixMIMPretrainHead(stride=1, in_channels=1, norm_pix=False)
    mask = torch.tensor([[[1, 0], [0, 1]]])
    assert head.loss(torch.rand(2, 4, 1), torch.rand(2, 1, 2, 2), mask).isfinite()


def test_flat_cells_have_a_target_of_zero():
    head = MixMIMPretrainHead(stride=4, in_channels=2)
    assert (head.construct_target(torch.full((1, 2, 4, 4), 7.0)) == 0).all()


def test_eps_is_inside_the_root():
    """Matters where a cell is nearly flat, as the background of a drawing."""
    head = MixMIMPretrainHead(stride=4, in_channels=2)
    image = 1e-3 * torch.randn(1, 2, 4, 4)
    cell = image.permute(0, 2, 3, 1).flatten()
    expected = (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()
    torch.testing.assert_close(head.construct_target(image)[0, 0], expected)


@pytest.mark.parametrize('masks', [1, 2])
def test_perfect_guess_has_no_loss_and_gives_the_image(head, masks):
    images, mask = torch.rand(2, 2, 8, 12), torch.rand(1, 2, 3) < 0.5
    mask = mask.expand(masks, -1, -1)
    cells = head.construct_target(images)
    pred = torch.where(mask.flatten(1)[..., None], cells, cells.flip(0))
    assert head.loss(pred, images, mask) == 0
    pictures = head.reconstruct(pred.requires_grad_(), images, mask)
    torch.testing.assert_close(pictures, images)
    assert not pictures.requires_grad


def test_loss_is_the_mean_over_hidden_pixels():
    head = MixMIMPretrainHead(stride=4, in_channels=2, norm_pix=False)
    images = torch.rand(2, 2, 4, 8)
    mask = torch.tensor([[[1, 0]]])
    pred = torch.zeros(2, 2, 32)
    # Image i is hidden at cell 0 of mixture i and at cell 1 of its partner's.
    assert head.loss(pred, images, mask).item() == pytest.approx(
        images.square().mean().item()
    )


def test_loss_is_computed_in_single_precision(head):
    images, mask = torch.rand(2, 2, 8, 12), torch.rand(1, 2, 3) < 0.5
    pred = torch.rand(2, 6, 32)
    low = head.loss(pred.bfloat16(), images, mask)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(head.loss(pred, images, mask).item(), rel=0.01)


def test_loss_can_be_configured():
    loss = dict(type='PixelReconstructionLoss', criterion='L1')
    head = MixMIMPretrainHead(stride=4, in_channels=2, norm_pix=False, loss=loss)
    pred, images = torch.zeros(2, 2, 32), torch.rand(2, 2, 4, 8)
    expected = images.mean().item()
    assert head.loss(pred, images, torch.tensor([[[1, 0]]])).item() == pytest.approx(
        expected
    )


def test_refuses_a_mask_of_another_grid_with_as_many_cells(head):
    images, mask = torch.rand(2, 2, 8, 8), torch.tensor([[[1, 0, 1, 0]]])
    with pytest.raises(ValueError, match=r'\(1 or 2, 2, 2\).*got \(1, 1, 4\)'):
        head.loss(torch.rand(2, 4, 32), images, mask)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_loss_is_found_from_any_scope(scope):
    with MODELS.switch_scope_and_registry(scope):
        loss = dict(type='PixelReconstructionLoss', criterion='L1')
        assert MixMIMPretrainHead(loss=loss).loss_module.penalty is not None


@pytest.mark.parametrize('norm_pix', [True, False])
def test_targets_and_losses_of_low_precision_are_float32(norm_pix):
    """Those of bfloat16 images equal those of their float32 copies."""
    head = MixMIMPretrainHead(stride=4, in_channels=2, norm_pix=norm_pix)
    images = torch.randn(2, 2, 8, 8).bfloat16()
    pred = torch.randn(2, 4, 32).bfloat16()
    mask = torch.tensor([[[1, 0], [0, 1]]])
    target = head.construct_target(images)
    assert target.dtype == torch.float32
    assert torch.equal(target, head.construct_target(images.float()))
    loss = head.loss(pred, images, mask)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, head.loss(pred.float(), images.float(), mask))
    pictures = head.reconstruct(pred, images, mask)
    assert torch.equal(pictures, head.reconstruct(pred.float(), images.float(), mask))


@pytest.mark.parametrize(
    'options, level',
    [
        ({}, 1.0),
        (dict(norm_pix=False), None),
        (dict(target='hog'), None),
        (dict(loss=dict(type='PixelReconstructionLoss', criterion='L1')), None),
        (dict(loss=dict(type='PixelReconstructionLoss', criterion='L2')), 1.0),
    ],
)
def test_loss_of_the_mean_is_known_for_normalised_pixels(options, level):
    assert MixMIMPretrainHead(**options).mean_loss == level


def test_hog_stays_in_float32():
    """DeepSpeed casts buffers, too."""
    images = torch.rand(2, 3, 64, 64)
    head = MixMIMPretrainHead(target='hog')
    expected = head.construct_target(images)
    found = head.bfloat16().construct_target(images)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert head.construct_target(images.bfloat16()).dtype == torch.float32


def test_hog_refuses_sizes_that_its_window_does_not_divide():
    head = MixMIMPretrainHead(8, target='hog')
    for size in ((24, 24), (16, 32)):
        with pytest.raises(UserError, match='square images of a multiple of 16'):
            head.construct_target(torch.rand(1, 3, *size))
    with pytest.raises(UserError, match='cells of a multiple of 8 pixels.*stride=4'):
        MixMIMPretrainHead(4, target='hog')


@pytest.fixture
def own():
    """Two cells, of which the second is hidden, and the one image that counts."""
    return TokenOwnership(torch.tensor([[[0, 1]]]), passes=1)


def test_channels_of_the_loss_divide_it_with_weights_too(own):
    loss = dict(type='PixelReconstructionLoss', criterion='L2', channel=2)
    head = MixMIMPretrainHead(stride=4, in_channels=2, loss=loss)
    pred, images = torch.randn(2, 2, 32), torch.randn(2, 2, 4, 8)
    plain = head.loss(pred, images, own)
    weighted = head.loss(pred, images, own, torch.full((2, 4, 8), 0.5))
    torch.testing.assert_close(weighted, plain)


def test_pixels_without_weight_may_be_nan(head, own):
    """They reach neither the loss nor the shown pixels."""
    images, weight = torch.rand(2, 2, 4, 8), (torch.rand(2, 4, 8) > 0.3).float()
    hole = (weight == 0)[:, None].expand_as(images)
    broken = images.masked_fill(hole, torch.nan)
    pred = torch.randn(2, 2, 32)
    wanted = head.loss(pred, images, own, weight)
    assert wanted.isfinite() and head.loss(pred, broken, own, weight) == wanted
    shown = head.reconstruct(pred, images, own, weight)[..., :4]
    valid = ~hole[..., :4]
    torch.testing.assert_close(shown[valid], images[..., :4][valid])
