"""Loss and gradients on a GPU against plain PyTorch on the CPU in float64.

Eager tests run on the CPU, too, so that they are known to work without a GPU.
"""

import copy

import pytest
import torch

from mmmixmim import ops
from mmmixmim.models import TokenOwnership
from tests.devices import DEVICES, needs_gpu

from .test_device_waits import build

# Relative errors of the loss, and of the gradients as one vector. cuDNN convolves
# float32 in TF32.
TOLERANCES = dict(float32=(1e-3, 1e-2), bfloat16=(1e-2, 0.1))

pytestmark = pytest.mark.filterwarnings('ignore:torch.meshgrid')


def loss_and_gradients(model, loss, images, mask):
    ownership = TokenOwnership(mask.to(images.device))
    value = loss(images, mask=ownership)['loss']
    value.backward()
    trained = [each.grad for each in model.parameters() if each.requires_grad]
    return torch.cat([each.flatten().cpu().double() for each in (value, *trained)])


def check(encoder, device, precision, **compiler):
    torch.manual_seed(0)
    model = build(encoder).eval()  # no stochastic depth
    exact, model = copy.deepcopy(model).double(), model.to(device)
    images, cell = torch.rand(4, 3, 128, 96), model.backbone.stride
    mask = torch.rand(1, 128 // cell, 96 // cell) < 0.5
    with ops.plain():
        wanted = loss_and_gradients(exact, exact.loss, images.double(), mask)
    loss = torch.compile(model.loss, **compiler) if compiler else model.loss
    low = precision != 'float32'
    with torch.autocast(device, torch.bfloat16, enabled=low):
        found = loss_and_gradients(model, loss, images.to(device), mask)
    for part, tolerance in zip(
        (slice(1), slice(1, None)), TOLERANCES[precision], strict=True
    ):
        error = (found[part] - wanted[part]).norm() / wanted[part].norm()
        assert error < tolerance


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('precision', TOLERANCES)
@pytest.mark.parametrize('encoder', ['mixmim', 'shifted', 'swin', 'hivit'])
def test_eager(encoder, precision, device):
    check(encoder, device, precision)


@needs_gpu
@pytest.mark.parametrize('encoder', ['mixmim', 'hivit'])
def test_compiled(encoder):
    torch.compiler.reset()
    check(encoder, 'cuda', 'bfloat16', fullgraph=True)
