"""Every figure of the authors' implementation, to 1e-4 relative or better."""

import runpy

import numpy as np
import pytest
import torch
from torch import nn

from mmmixmim.models import MixMIMTransformer, TokenOwnership

from ..conftest import REFERENCE

weights = runpy.run_path(str(REFERENCE / 'reference_weights.py'))


def load(name):
    return {k: torch.from_numpy(v) for k, v in np.load(REFERENCE / name).items()}


def fill(module, seed):
    """Give a module the reference's weights; position embeddings stay."""
    for name, parameter in module.named_parameters():
        if 'pos_embed' not in name:
            array = weights['array_for'](name, tuple(parameter.shape), seed)
            parameter.data.copy_(torch.from_numpy(array))


def assert_matches(actual, expected, tolerance=1e-5):
    """Largest difference over the largest value."""
    expected = torch.as_tensor(expected)
    error = (actual.detach() - expected).abs().max() / expected.abs().max()
    assert error < tolerance, f'relative error {error:.2e}'


@pytest.fixture
def tiny(reference):
    return reference['tiny']


@pytest.fixture
def make_pretrain(make_mixmim, tiny):
    def make(img_size, seed):
        model = make_mixmim(
            backbone=dict(
                img_size=img_size,
                # As the authors' code shrinks them to small maps.
                window_size=[
                    min(window, img_size // 4 // 2**i)
                    for i, window in enumerate(tiny['window_size'])
                ],
            )
        )
        fill(model.backbone, seed)
        fill(model.neck, seed)
        return model

    return make


@pytest.fixture
def make_encoder(tiny, tiny_arch):
    def make(img_size, window_size, **kwargs):
        return MixMIMTransformer(
            tiny_arch, img_size=img_size, window_size=window_size, **kwargs
        )

    return make


@pytest.mark.parametrize(
    'name, img_size, seed',
    [('tiny_pretrain.npz', 128, 0), ('tiny_pretrain_odd.npz', 64, 1)],
)
def test_pretraining(make_pretrain, name, img_size, seed):
    expected = load(name)
    model = make_pretrain(img_size, seed)
    mask = expected['mask'][None]
    ownership = TokenOwnership(mask)

    latent = model.backbone(expected['images'], mask)[-1]
    assert_matches(latent.flatten(2).transpose(1, 2), expected['latent'])

    both_passes = model.neck.decoder_pred(model.neck.decode(latent, ownership))
    assert_matches(both_passes, expected['reconstruction'])

    # What the neck returns is each cell's guess out of the two passes.
    own, partner = expected['reconstruction'].chunk(2)
    guesses = torch.where(mask.flatten()[:, None] == 1, own, partner)
    assert_matches(model.neck(latent, mask), guesses)

    loss = model.loss(expected['images'], mask=mask)['loss']
    assert_matches(loss, expected['loss'])


def test_position_embeddings(make_pretrain):
    expected = load('tiny_pretrain.npz')
    model = make_pretrain(128, 0)
    assert_matches(model.backbone.absolute_pos_embed, expected['absolute_pos_embed'])
    assert_matches(model.neck.decoder_pos_embed, expected['decoder_pos_embed'])


def test_gradient_norms(make_pretrain, reference):
    data = load('tiny_pretrain.npz')
    model = make_pretrain(128, 0)
    model.loss(data['images'], mask=data['mask'][None])['loss'].backward()
    parameters = dict(model.backbone.named_parameters())
    parameters |= dict(model.neck.named_parameters())

    norms = reference['tiny_pretrain_grad_norms']
    assert set(norms) == {k for k, p in parameters.items() if p.requires_grad}
    for name, norm in norms.items():
        assert parameters[name].grad.norm().item() == pytest.approx(norm, rel=1e-5), (
            name
        )


def test_classification(make_encoder, tiny):
    expected = load('tiny_classify.npz')
    encoder = make_encoder(128, tiny['window_size'])
    fill(encoder, seed=0)
    head = nn.Linear(128, tiny['num_classes'])
    for name, parameter in head.named_parameters():
        array = weights['array_for'](f'head.{name}', tuple(parameter.shape), 0)
        parameter.data.copy_(torch.from_numpy(array))

    stages = {}
    for i, stage in enumerate(encoder.layers):
        stage.register_forward_hook(
            lambda _, __, out, i=i: stages.update({f'stage{i + 1}': out.flatten(1, 2)})
        )
    (features,) = encoder(expected['images'])

    for name in ('stage1', 'stage2', 'stage3'):
        assert_matches(stages[name], expected[name])
    assert_matches(features.flatten(2).transpose(1, 2), expected['normed'])
    assert_matches(features.mean((2, 3)), expected['pooled'])
    assert_matches(head(features.mean((2, 3))), expected['logits'])


def test_resized_weights(make_encoder, tiny):
    expected = load('tiny_resized.npz')
    source = make_encoder(128, tiny['window_size'])
    fill(source, seed=0)
    target = make_encoder(192, [12, 12, 12, 6])
    target.load_state_dict(source.state_dict())

    state = target.state_dict()
    tables = [name for name in expected if '/' in name]
    assert len(tables) == 5
    for name in ['absolute_pos_embed', *tables]:
        assert_matches(state[name.replace('/', '.')], expected[name])

    head = [
        torch.from_numpy(weights['array_for'](f'head.{name}', shape, 0))
        for name, shape in (('weight', (10, 128)), ('bias', (10,)))
    ]
    pooled = target(expected['images'])[-1].mean((2, 3))
    assert_matches(nn.functional.linear(pooled, *head), expected['logits'])


def test_resizing_on_the_fly_is_resizing_on_load(make_encoder, tiny):
    source = make_encoder(128, tiny['window_size'])
    target = make_encoder(192, tiny['window_size'])
    target.load_state_dict(source.state_dict())
    images = torch.rand(1, 3, 192, 192)
    torch.testing.assert_close(source(images), target(images))


def test_parameter_names_and_shapes(make_pretrain, reference):
    model = make_pretrain(128, 0)
    ours = {}
    for part in (model.backbone, model.neck):
        ours |= {name: list(value.shape) for name, value in part.state_dict().items()}
    theirs = {
        name: shape
        for name, shape in reference['pretrain_parameters'].items()
        if not name.endswith('relative_position_index')
    }
    assert ours == theirs


@pytest.mark.parametrize('arch', ['base', 'large'])
def test_parameter_counts(make_mixmim, reference, arch):
    def count(*modules):
        parameters = [p for module in modules for p in module.parameters()]
        return dict(
            total=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
        )

    counts = reference['parameter_counts']
    with torch.device('meta'):
        neck = dict(decoder_embed_dims=512, decoder_depth=8, decoder_num_heads=16)
        backbone = dict(arch=arch, img_size=224, window_size=None)
        model = make_mixmim(backbone=backbone, neck=neck)
        head = nn.Linear(model.backbone.out_channels[-1], 1000)
        assert count(model) == counts[f'pretrain_{arch}']
        assert count(model.backbone, head) == counts[f'classify_{arch}']
        large_images = MixMIMTransformer(
            arch, img_size=384, window_size=[16, 16, 24, 12]
        )
        assert count(large_images, head) == counts[f'classify_{arch}_384']


def test_parameter_counts_of_huge(make_mixmim):
    # Counted on the authors' model, like those in the reference file.
    with torch.device('meta'):
        neck = dict(decoder_embed_dims=512, decoder_depth=8, decoder_num_heads=16)
        backbone = dict(arch='huge', img_size=224, window_size=None)
        model = make_mixmim(backbone=backbone, neck=neck)
        head = nn.Linear(model.backbone.out_channels[-1], 1000)
    assert sum(p.numel() for p in model.parameters()) == 684_709_594
    classifier = [*model.backbone.parameters(), *head.parameters()]
    assert sum(p.numel() for p in classifier) == 659_262_658
