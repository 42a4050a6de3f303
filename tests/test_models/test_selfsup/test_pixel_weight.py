"""Weights of pixels, from the samples to the gradients."""

import pytest
import torch
from mmpretrain.structures import DataSample

from mmmixmim.validation import UserError

MASK = torch.tensor([[[1, 0], [0, 1]]])


@pytest.fixture
def model(make_mixmim):
    return make_mixmim(backbone=dict(in_channels=5))


@pytest.fixture
def images():
    return torch.randn(4, 5, 64, 64)


@pytest.fixture
def weight():
    """Some pixels without data, a whole cell, and a whole image."""
    weight = torch.rand(4, 64, 64)
    weight[weight < 0.3] = 0
    weight[0, :32, 32:] = 0
    weight[2] = 0
    return weight


def samples(weight):
    made = []
    for each in weight:
        made.append(DataSample())
        made[-1].set_field(each, 'pixel_weight')
    return made


def loss_and_gradients(model, images, weight):
    model.zero_grad()
    data_samples = None if weight is None else samples(weight)
    loss = model.loss(images, data_samples, MASK)['loss']
    loss.backward()
    return [
        loss.detach(),
        *(p.grad.clone() for p in model.parameters() if p.requires_grad),
    ]


def identical(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize('junk', [0.0, -3.7, 1e30, torch.nan, torch.inf])
def test_values_without_data_change_neither_loss_nor_gradients(
    model, images, weight, junk
):
    """Bit for bit."""
    wanted = loss_and_gradients(model, images, weight)
    assert all(each.isfinite().all() for each in wanted) and wanted[0] > 0
    changed = torch.where(weight[:, None] > 0, images, junk)
    assert identical(loss_and_gradients(model, changed, weight), wanted)


def test_weights_of_one_change_nothing(model, images):
    """Bit for bit."""
    wanted = loss_and_gradients(model, images, None)
    found = loss_and_gradients(model, images, torch.ones(4, 64, 64))
    assert identical(found, wanted)


def test_weights_are_relative(model, images, weight):
    wanted = loss_and_gradients(model, images, weight)
    found = loss_and_gradients(model, images, weight * 8)  # exact in binary
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    equal = loss_and_gradients(model, images, torch.full((4, 64, 64), 0.5))
    plain = loss_and_gradients(model, images, None)
    assert equal[0].item() == pytest.approx(plain[0].item(), rel=1e-5)


def test_images_without_valid_pixels_give_no_gradient(model, images):
    loss, *gradients = loss_and_gradients(model, images, torch.zeros(4, 64, 64))
    assert loss == 0 and not any(each.any() for each in gradients)


@pytest.mark.parametrize('options', [{}, dict(reconstruct='own'), dict(num_images=4)])
def test_loss_is_that_of_the_equation(make_mixmim, images, weight, options):
    """Written out cell by cell in float64, from the model's own predictions."""
    model = make_mixmim(backbone=dict(in_channels=5), **options)
    mask = torch.tensor([[[0, 1], [2, 3]]]) if options.get('num_images') else MASK
    found = model.loss(images, samples(weight), mask)['loss'].item()
    clean = torch.where(weight[:, None] > 0, images, 0)
    ownership = model.ownership(clean, mask)
    pred = model.encode_decode(clean, ownership).detach().double()
    cells = model.head.patchify(clean.double())
    weights = model.head.patchify(weight[:, None].expand(-1, 5, -1, -1).double())
    error = total = 0.0
    owners = ownership.owners.flatten(1).expand(4, -1)
    for i in range(4):
        for cell in range(4):
            owner = int(owners[i, cell])
            row = 0
            for k in range(ownership.passes):
                if k == owner:
                    continue
                j = int(ownership.partner(torch.arange(4), k)[i])
                w, x = weights[j, cell], cells[j, cell]
                predicted = pred[row * 4 + i, cell]
                row += 1
                if not w.any():
                    continue
                mean = (w * x).sum() / w.sum()
                freedom = w.sum() - (w**2).sum() / w.sum()
                variance = (w * (x - mean) ** 2).sum() / freedom
                target = (x - mean) / (variance + 1e-6).sqrt()
                error += (w * (predicted - target) ** 2).sum()
                total += w.sum()
    assert found == pytest.approx((error / total).item(), rel=1e-4)


def test_valid_pixels_have_their_own_statistics(model, images):
    """With weights 0 and 1: mean and unbiased variance of the valid pixels alone."""
    weight = torch.zeros(4, 64, 64)
    weight[:, :7, :9] = 1
    target = model.head.construct_target(images, model.head._cell_weights(weight))
    target = model.head.unpatchify(target, (64, 64))
    valid = images[0, :, :7, :9]
    wanted = (valid - valid.mean()) / (valid.var() + 1e-6).sqrt()
    assert torch.allclose(target[0, :, :7, :9], wanted, atol=1e-5)
    assert not target[0, :, 7:32].any()


def test_single_valid_value_is_no_error(make_mixmim):
    model = make_mixmim(backbone=dict(in_channels=1))
    weight = torch.zeros(2, 64, 64)
    weight[:, 3, 3] = 0.37
    weight[:, 40, 40] = 0.91
    found = loss_and_gradients(model, torch.randn(2, 1, 64, 64) * 1e3, weight)
    assert all(each.isfinite().all() for each in found) and found[0] < 100


def test_pictures_leave_out_what_has_no_data(model, images, weight):
    """Brightness and contrast of a shown cell are those of its valid pixels."""
    wanted = model.reconstruct(images, MASK, weight)
    changed = torch.where(weight[:, None] > 0, images, torch.nan)
    found = model.reconstruct(changed, MASK, weight)
    for key in ('mixed', 'reconstruction'):
        assert found[key].isfinite().all() and torch.equal(found[key], wanted[key])


def test_held_out_images_are_measured_by_what_has_data(model, images, weight):
    wanted = model.predict(images, samples(weight))
    changed = torch.where(weight[:, None] > 0, images, torch.nan)
    found = model.predict(changed, samples(weight))
    for a, b in zip(found, wanted, strict=True):
        assert identical([a.reconstruction_loss], [b.reconstruction_loss])
        assert a.reconstruction_loss.isfinite() and identical(a.features, b.features)


def test_what_takes_no_weights_says_so(make_mixmim, model, images, weight):
    with pytest.raises(UserError, match='pixel_weight of this size'):
        model.loss(images, samples(weight[:, :32]), MASK)
    with pytest.raises(UserError, match='pixel_weight of this size'):
        model.loss(images, [*samples(weight[:3]), DataSample()], MASK)
    with pytest.raises(UserError, match=r'\(4, 64, 64\) of the images, got \(4, 32'):
        model.reconstruct(images, MASK, weight[:, :32])
    hog = make_mixmim(head=dict(target='hog'))
    with pytest.raises(UserError, match="need target='pixels'"):
        hog.loss(torch.randn(4, 3, 64, 64), samples(weight), MASK)


@pytest.mark.parametrize('odd', [-0.5, torch.nan, torch.inf])
def test_odd_weights_are_refused(model, images, weight, odd):
    weight[1, 2, 3] = odd
    with pytest.raises(UserError, match=f'pixel_weight must be 0 .* got {odd}'):
        model.loss(images, samples(weight), MASK)
    with pytest.raises(UserError, match=f'pixel_weight must be 0 .* got {odd}'):
        model.reconstruct(images, MASK, weight)
