"""What the model measures on held-out images."""

import random

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mmmixmim.models.selfsup import fixed_mixtures

SIMMIM = dict(
    filling='mask_token',
    neck=dict(type='SimMIMLinearDecoder', encoder_stride=32, in_channels=128),
    head=dict(
        type='SimMIMHead',
        patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
    ),
)
METHODS = {
    'two images': {},
    'three images': dict(num_images=3),
    'four images': dict(num_images=4),
    'one reconstructed': dict(reconstruct='own'),
    'mask token': dict(filling='mask_token'),
    'hog': dict(head=dict(target='hog')),
    'simmim': SIMMIM,
}


@pytest.fixture
def make_model(make_mixmim):
    def make(neck=None, head=None, **kwargs):
        if neck is None:
            return make_mixmim(head=head, **kwargs).eval()
        from mmmixmim.models import MixMIM

        backbone = make_mixmim().backbone
        return MixMIM(backbone=backbone, neck=neck, head=head, **kwargs).eval()

    return make


def groups(model, count):
    return [torch.randn(count, 3, 64, 96) for _ in range(model.num_images)]


def positions(numbers):
    return [DataSample(metainfo=dict(position=number)) for number in numbers]


@pytest.mark.parametrize('method', METHODS)
def test_loss_is_that_of_training_with_the_same_masks(make_model, method):
    model = make_model(**METHODS[method])
    inputs = (
        groups(model, 1)
        if method != 'hog'
        else [torch.randn(1, 3, 64, 64) for _ in range(2)]
    )
    (sample,) = model.predict(inputs, positions([3]))
    images, ownership = fixed_mixtures(model, inputs, [3])
    wanted = model.loss(images, mask=ownership.mask[:1])['loss']
    torch.testing.assert_close(sample.reconstruction_loss, wanted)
    assert wanted.requires_grad and not sample.reconstruction_loss.requires_grad


@pytest.mark.parametrize('method', ['two images', 'three images', 'simmim'])
def test_loss_of_a_batch_is_the_mean_of_its_groups(make_model, method):
    model = make_model(**METHODS[method])
    inputs = groups(model, 5)
    samples = model.predict(inputs, positions(range(5)))
    images, ownership = fixed_mixtures(model, inputs, range(5))
    wanted = model.loss(images, mask=ownership)['loss']
    found = torch.stack([sample.reconstruction_loss for sample in samples]).mean()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('method', sorted(METHODS.keys() - {'hog'}))
def test_a_group_is_measured_alike_in_every_batch(make_model, method):
    model = make_model(**METHODS[method])
    inputs = groups(model, 4)
    together = model.predict(inputs, positions([0, 1, 2, 3]))
    for order in ([2], [3, 1]):
        some = model.predict([each[order] for each in inputs], positions(order))
        for sample, number in zip(some, order, strict=True):
            wanted = together[number]
            torch.testing.assert_close(
                sample.reconstruction_loss, wanted.reconstruction_loss
            )
            torch.testing.assert_close(sample.features, wanted.features)


@pytest.mark.parametrize('weighted', [False, True])
def test_predicting_the_mean_costs_the_share_of_cells_that_are_not_blank(
    make_model, weighted
):
    model = make_model()
    zeros = torch.zeros(6, 6, 32 * 32 * 3)
    model.neck.forward = lambda maps, ownership: zeros
    inputs = groups(model, 3)
    for each in inputs:
        each[1, :, :32] = 7  # three of six cells
        each[2, :, :, :32] = 7  # two of six
    samples = positions([3, 4, 5])
    if weighted:  # these two don't count
        weight = torch.ones(3, 64, 96)
        weight[2, :, :32] = 0
        for sample, each in zip(samples, weight, strict=True):
            sample.members = [DataSample(), DataSample()]
            for member in sample.members:
                member.set_field(each, 'pixel_weight')
    found = model.predict(inputs, samples)
    for sample, level in zip(found, (1, 1 / 2, 1 if weighted else 2 / 3), strict=True):
        assert float(sample.mean_loss) == pytest.approx(level, abs=2e-3)
        assert sample.mean_loss == sample.reconstruction_loss


def test_blank_cells_of_normalised_rgb_images_are_not_predicted_by_the_mean(
    make_model,
):
    model = make_model()
    mean, std = torch.tensor([[123.7, 116.3, 103.5], [58.4, 57.1, 57.4]])
    images = torch.zeros(1, 3, 64, 96)  # black
    images = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    (sample,) = model.predict([images, images], positions([0]))
    assert float(sample.mean_loss) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize('method', ['hog', 'simmim'])
def test_the_mean_is_not_measured_where_it_is_not_zero(make_model, method):
    model = make_model(**METHODS[method])
    images = [torch.randn(1, 3, 64, 64) for _ in range(2)]
    (sample,) = model.predict(images, positions([0]))
    assert 'mean_loss' not in sample


def test_features_are_those_of_plain_images_in_the_order_of_the_group(make_model):
    model = make_model()
    inputs = groups(model, 3)
    samples = model.predict(inputs, positions(range(3)))
    for j, sample in enumerate(samples):
        images = torch.stack([each[j] for each in inputs])
        wanted = model.extract_feat(images)[-1].mean((2, 3))
        torch.testing.assert_close(sample.features[-1], wanted)
        assert [len(each) for each in sample.features] == [2] * 4


def test_masks_differ_by_position_and_hide_the_share_of_the_training(make_model):
    model = make_model(mask_ratio=0.5)
    _, ownership = fixed_mixtures(model, groups(model, 6), range(6))
    masks = ownership.mask[:6].flatten(1)
    assert (masks.sum(1) == 3).all() and len(masks.unique(dim=0)) > 3
    _, again = fixed_mixtures(model, groups(model, 2), [4, 1])
    assert torch.equal(again.mask[:2], ownership.mask[[4, 1]])


def test_masks_hide_the_middle_of_the_range(make_model):
    model = make_model(mask_ratio=0.5, range_mask_ratio=0.4)
    _, ownership = fixed_mixtures(model, groups(model, 1), [0])
    assert ownership.mask[0].sum() == 4  # of 6 cells: 0.7


def test_noise_differs_by_position(make_model):
    model, seeds = make_model(filling='noise'), []
    model.neck.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
    for position in (3, 4, 3):
        model.predict(groups(model, 1), positions([position]))
    assert seeds[0] == seeds[2] != seeds[1]


@pytest.mark.parametrize('filling', ['partner', 'noise', 'shuffled_cells'])
def test_random_state_neither_matters_nor_changes(make_model, filling):
    model = make_model(filling=filling, range_mask_ratio=0.2)
    inputs = groups(model, 2)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        random.seed(seed)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
        sample = model.predict(inputs, positions([0, 1]))[0]
        losses.append(sample.reconstruction_loss)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1]
        assert np.array_equal(np.random.get_state()[1], before[2])
    assert losses[0] == losses[1]


@pytest.mark.parametrize('count, images', [(4, 2), (5, 2), (1, 2), (5, 3)])
def test_a_plain_batch_gives_one_sample_for_each_image(make_model, count, images):
    model = make_model(num_images=images)
    batch = torch.randn(count, 3, 64, 64)
    samples = model.predict(batch)
    assert len(samples) == count
    for image, sample in zip(batch, samples, strict=True):
        wanted = model.extract_feat(image[None])[-1].mean((2, 3))
        torch.testing.assert_close(sample.features[-1], wanted, rtol=1e-4, atol=1e-4)
        assert sample.reconstruction_loss.isfinite()


def test_no_images_give_no_samples(make_model):
    model, none = make_model(), torch.randn(0, 3, 64, 64)
    assert model.predict(none) == model.predict([none, none], []) == []


def test_a_plain_batch_is_measured_as_its_groups(make_model):
    """With weights of pixels, which are used."""
    model = make_model()
    batch, weight = torch.randn(4, 3, 64, 64), (torch.rand(4, 64, 64) > 0.3).float()
    samples = [DataSample() for _ in batch]
    for sample, each in zip(samples, weight, strict=True):
        sample.set_field(each, 'pixel_weight')
    found = model.predict(batch, samples)
    plain = model.predict(batch)
    for k in range(2):
        group = positions([k])[0]
        group.members = [samples[k], samples[k + 2]]
        (wanted,) = model.predict([batch[k : k + 1], batch[k + 2 : k + 3]], [group])
        for i in (k, k + 2):
            torch.testing.assert_close(
                found[i].reconstruction_loss, wanted.reconstruction_loss
            )
            assert found[i].reconstruction_loss != plain[i].reconstruction_loss


def test_weights_of_pixels_count_as_in_training(make_model):
    model = make_model()
    inputs, weight = groups(model, 1), (torch.rand(2, 64, 96) > 0.3).float()

    def group(*weights):
        (sample,) = positions([3])
        sample.members = [DataSample() for _ in weights]
        for member, each in zip(sample.members, weights, strict=True):
            if each is not None:
                member.set_field(each, 'pixel_weight')
        return sample

    def measure(sample):
        return model.predict(inputs, [sample])[0].reconstruction_loss

    images, ownership = fixed_mixtures(model, inputs, [3])
    both = group(*weight)
    wanted = model.loss(images, both.members, ownership.mask[:1])['loss']
    torch.testing.assert_close(measure(both), wanted)
    # An image without weights counts everywhere.
    wanted = measure(group(weight[0], torch.ones(64, 96)))
    torch.testing.assert_close(measure(group(weight[0], None)), wanted)


def test_val_step_normalises_and_predicts(make_model):
    model = make_model(data_preprocessor=dict(mean=[100.0] * 3, std=[50.0] * 3))
    raw = [torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = positions([0, 1])
    found = model.val_step(dict(inputs=raw, data_samples=samples))
    wanted = model.predict([(each.float() - 100) / 50 for each in raw], samples)
    for a, b in zip(found, wanted, strict=True):
        assert a.reconstruction_loss == b.reconstruction_loss
