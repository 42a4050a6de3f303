"""Any architecture, size and mask against a slow implementation of the method."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmixmim import ops
from mmmixmim.models import MixMIM

from .slow_method import slow_loss

FEW = settings(max_examples=25, derandomize=True, deadline=None, database=None)


@st.composite
def cases(draw):
    """Arguments of a small model, and a batch with its cells."""
    stages = draw(st.integers(1, 3))
    patch = draw(st.integers(1, 3 if stages < 3 else 2))
    grid = [draw(st.integers(1, 3 if stages < 3 else 2)) for _ in range(2)]
    maps = [[side * 2**i for side in grid] for i in reversed(range(stages))]
    channels = draw(st.sampled_from([4, 8]))
    heads = [draw(st.sampled_from([1, 2, 4])) for _ in range(stages)]
    depths = [draw(st.integers(1, 2)) for _ in range(stages)]
    windows = [tuple(draw(st.integers(1, side)) for side in size) for size in maps]
    shift = draw(st.booleans())
    stride = patch * 2 ** (stages - 1)
    decoder = dict(
        decoder_embed_dims=8,
        decoder_depth=draw(st.integers(1, 2)),
        decoder_num_heads=draw(st.sampled_from([1, 2])),
    )
    images = draw(st.integers(2, 4))
    batch = draw(st.integers(1, 4)) if images == 2 else images
    in_channels = draw(st.integers(1, 3))
    if in_channels * stride**2 == 1:  # one pixel has no variance
        in_channels = 2
    model = dict(
        backbone=dict(
            type='MixMIMTransformer',
            arch=dict(embed_dims=channels, depths=depths, num_heads=heads),
            img_size=[side * stride for side in grid],
            patch_size=patch,
            in_channels=in_channels,
            window_size=windows,
            shift_windows=shift,
            mlp_ratio=draw(st.sampled_from([1, 2.5])),
            qkv_bias=draw(st.booleans()),
            with_cp=draw(st.booleans()),
        ),
        neck=decoder,
        num_images=images,
    )
    arch = dict(
        patch_size=patch,
        depths=depths,
        num_heads=heads,
        windows=windows,
        shift=shift,
        decoder_depth=decoder['decoder_depth'],
        decoder_num_heads=decoder['decoder_num_heads'],
    )
    cells = draw(st.sampled_from([1, batch]))  # shared, or one grid per mixture
    seed = draw(st.integers(0, 2**16))
    return model, arch, (batch, in_channels), (cells, *grid), seed


def build(model, seed):
    """A model whose norms, biases and tables are not those of the start."""
    torch.manual_seed(seed)
    built = MixMIM(**model)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return built


@pytest.mark.parametrize('plain', [False, True], ids=['kernels', 'plain'])
def test_loss_and_gradient_are_those_of_the_slow_method(plain):
    @FEW
    @given(cases())
    def check(case):
        model, arch, (batch, channels), cells, seed = case
        built = build(model, seed)
        height, width = built.backbone.img_size
        images = torch.randn(batch, channels, height, width)
        mask = torch.randint(model['num_images'], cells)
        owners = mask.expand(batch, -1, -1).numpy()
        if plain:
            with ops.plain():
                loss = built.loss(images, mask=mask)['loss']
                loss.backward()
        else:
            loss = built.loss(images, mask=mask)['loss']
            loss.backward()

        def slow(step=0.0, directions=None):
            weights = {
                name: value.numpy().astype(np.float64)
                for name, value in built.state_dict().items()
            }
            for name, direction in (directions or {}).items():
                weights[name] = weights[name] + step * direction
            return slow_loss(weights, images, owners, arch, model['num_images'])

        assert loss.item() == pytest.approx(slow(), rel=1e-4)

        # The slope along one direction, for all parameters at once.
        rng = np.random.default_rng(seed)
        gradients = {
            name: parameter.grad.numpy()
            for name, parameter in built.named_parameters()
            if parameter.grad is not None
        }
        trained = {n for n, p in built.named_parameters() if p.requires_grad}
        assert gradients.keys() == trained
        directions = {n: rng.normal(size=g.shape) for n, g in gradients.items()}
        slope = sum((gradients[n] * directions[n]).sum() for n in gradients)
        step = 1e-5
        change = slow(step, directions) - slow(-step, directions)
        assert slope == pytest.approx(change / (2 * step), rel=2e-3, abs=2e-3)

    check()
