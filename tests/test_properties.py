"""Any architecture, size and mask against a slow implementation of the method."""

import contextlib

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
        for parameter in built.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return built


@FEW
@given(cases())
@pytest.mark.filterwarnings('ignore:A batch of one image')
def test_loss_and_gradient_are_those_of_the_slow_method(case):
    model, arch, (batch, channels), cells, seed = case
    built = build(model, seed)
    images = torch.randn(batch, channels, *built.backbone.img_size)
    mask = torch.randint(model['num_images'], cells)
    owners = mask.expand(batch, -1, -1).numpy()
    weights = {name: value.numpy() for name, value in built.state_dict().items()}
    trained = {n: p for n, p in built.named_parameters() if p.requires_grad}
    rng = np.random.default_rng(seed)
    directions = {name: rng.normal(size=p.shape) for name, p in trained.items()}

    def slow(step):
        """Loss after a step along one direction of all parameters at once."""
        moved = {name: weights[name] + step * d for name, d in directions.items()}
        return slow_loss(weights | moved, images, owners, arch, model['num_images'])

    slope = (slow(1e-5) - slow(-1e-5)) / 2e-5
    for path in (contextlib.nullcontext, ops.plain):
        built.zero_grad()
        with path():
            loss = built.loss(images, mask=mask)['loss']
            loss.backward()
        assert loss.item() == pytest.approx(slow(0), rel=1e-4)
        found = sum((p.grad.numpy() * directions[n]).sum() for n, p in trained.items())
        assert found == pytest.approx(slope, rel=2e-3, abs=2e-3)
