"""Encoders outside of PyTorch's eager mode: ONNX and exported programs."""

import numpy as np
import onnxruntime
import pytest
import torch
from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead
from torch import nn
from torch.export import Dim

from mmmixmim import ops
from mmmixmim.models import MixMIMTransformer

from ...conftest import ROOT

# PyTorch 2.6 exports batches of any size with dynamo=False only.
DYNAMO = pytest.mark.skipif(torch.__version__ < (2, 9), reason='needs PyTorch 2.9')


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


@pytest.mark.parametrize(
    'dynamo',
    [pytest.param(False, id='mmdeploy'), pytest.param(True, id='dynamo', marks=DYNAMO)],
)
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


@DYNAMO
def test_a_classifier_as_the_page_on_usage_exports_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arch = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])
    model = ImageClassifier(
        MixMIMTransformer(arch, img_size=64),
        GlobalAveragePooling(),
        LinearClsHead(num_classes=3, in_channels=16),
    ).eval()
    page = (ROOT / 'docs' / 'usage.md').read_text()
    code = page.split('## Export\n\n```python\n')[1].split('```')[0]
    exec(code, dict(torch=torch, model=model, images=torch.rand(2, 3, 64, 64)))
    others = torch.rand(5, 3, 64, 64)
    session = onnxruntime.InferenceSession('model.onnx')
    (found,) = session.run(None, {session.get_inputs()[0].name: others.numpy()})
    np.testing.assert_allclose(found, model(others).detach(), rtol=1e-4, atol=1e-5)


def test_traces_can_be_saved(encoder_and_images, tmp_path):
    encoder, images = encoder_and_images
    path = str(tmp_path / 'encoder.pt')
    torch.jit.trace(encoder, images, check_trace=False).save(path)
    others = torch.rand(5, *images.shape[1:])
    torch.testing.assert_close(
        torch.jit.load(path)(others), encoder(others), rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_layers_are_quantised_as_the_page_on_usage_says(encoder_and_images):
    encoder, images = encoder_and_images
    wanted = encoder(images)
    layers = [each for each in encoder.modules() if type(each) is ops.Linear]
    for layer in layers:
        layer.__class__ = nn.Linear
    quantised = torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear})
    kind = torch.ao.nn.quantized.dynamic.Linear
    assert sum(type(each) is kind for each in quantised.modules()) == len(layers) > 0
    for each, full in zip(quantised(images), wanted, strict=True):
        assert 0 < (each - full).norm() < 0.1 * full.norm()


def test_exported_programs_take_other_batches(encoder_and_images):
    encoder, images = encoder_and_images
    batch = Dim('batch', min=2, max=64)
    program = torch.export.export(encoder, (images,), dynamic_shapes=({0: batch},))
    others = torch.rand(5, *images.shape[1:])
    torch.testing.assert_close(
        program.module()(others), encoder(others), rtol=1e-4, atol=1e-5
    )
