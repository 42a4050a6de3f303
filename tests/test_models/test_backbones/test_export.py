"""Encoders outside of PyTorch's eager mode: ONNX and exported programs."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch.export import Dim

from mmmixmim.models import MixMIMTransformer


@pytest.fixture
def encoder_and_images():
    """Several windows, smaller ones at the edges, and shifted ones."""
    torch.manual_seed(0)
    arch = dict(embed_dims=8, depths=[2, 1], num_heads=[1, 2])
    encoder = MixMIMTransformer(
        arch, img_size=64, window_size=7, shift_windows=True, out_indices=(0, 1)
    )
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder.eval().requires_grad_(False), torch.rand(2, 3, 96, 80)


@pytest.mark.parametrize('dynamo', [False, True], ids=['mmdeploy', 'dynamo'])
def test_onnx_computes_the_same_for_other_batches(encoder_and_images, dynamo, tmp_path):
    encoder, images = encoder_and_images
    path, options = str(tmp_path / 'encoder.onnx'), dict(dynamic_shapes=({0: 'batch'},))
    if not dynamo:  # the exporter that mmdeploy calls
        options = dict(input_names=['images'], dynamic_axes=dict(images={0: 'batch'}))
    torch.onnx.export(encoder, (images,), path, dynamo=dynamo, **options)
    session = onnxruntime.InferenceSession(path)
    others = torch.rand(5, *images.shape[1:])
    found = session.run(None, {session.get_inputs()[0].name: others.numpy()})
    for each, wanted in zip(found, encoder(others), strict=True):
        np.testing.assert_allclose(each, wanted, rtol=1e-4, atol=1e-5)


def test_exported_programs_take_other_batches(encoder_and_images):
    encoder, images = encoder_and_images
    batch = Dim('batch', min=2, max=64)
    program = torch.export.export(encoder, (images,), dynamic_shapes=({0: batch},))
    others = torch.rand(5, *images.shape[1:])
    torch.testing.assert_close(
        program.module()(others), encoder(others), rtol=1e-4, atol=1e-5
    )
