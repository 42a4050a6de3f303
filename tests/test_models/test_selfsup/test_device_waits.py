"""A training step never waits for the device: nothing is copied from or to the host.

A GPU works on a queue of kernels. Reading a value, or copying from memory that is not
pinned, waits until the queue is empty.
"""

import pytest
import torch
from mmpretrain.structures import DataSample
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmixmim.models import MixMIM
from mmmixmim.models.meta import meta_device
from tests.devices import needs_gpu
from tests.no_waits import NoHostTensors, NoWaits

ARCH = dict(embed_dims=16, depths=[1, 1, 1], num_heads=[1, 2, 4])

ENCODERS = dict(
    mixmim=dict(type='MixMIMTransformer', arch=ARCH, img_size=128),
    shifted=dict(
        type='MixMIMTransformer',
        arch=ARCH,
        img_size=128,
        window_size=12,
        shift_windows=True,
        recompute='blocks',
    ),
    swin=dict(
        type='MixMIMSwinTransformer',
        arch=dict(embed_dims=16, depths=[2, 2, 2], num_heads=[1, 2, 4]),
        img_size=128,
        window_size=4,
        out_indices=(2,),
    ),
    convnext=dict(
        type='MixMIMConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32]),
        img_size=128,
    ),
    hivit=dict(
        type='MixMIMHiViT',
        arch=dict(embed_dims=32, depths=[1, 1, 2], num_heads=2),
        img_size=128,
    ),
)
OPTIONS = dict(
    default={},
    four_images=dict(num_images=4),
    shuffled_cells=dict(filling='shuffled_cells'),
    own=dict(reconstruct='own', range_mask_ratio=0.2),
    weights={},
)


def build(encoder, **options):
    """A tiny model."""
    return MixMIM(
        backbone=ENCODERS[encoder],
        neck=dict(
            type='MixMIMPretrainDecoder',
            decoder_embed_dims=32,
            decoder_depth=1,
            decoder_num_heads=2,
        ),
        **options,
    ).train()


def batch(device, weighted=False):
    """Images, and samples with the weights of their pixels."""
    images = torch.rand(4, 3, 128, 96, device=device)
    samples = [DataSample() for _ in images] if weighted else None
    for sample in samples or ():
        sample.pixel_weight = torch.ones(128, 96, device=device)
    return images, samples


CASES = [('mixmim', name) for name in OPTIONS]
CASES += [(name, 'default') for name in list(ENCODERS)[1:]]


# PyTorch cannot run the backward pass of fake CUDA tensors without a card, and 2.6 not
# even the forward pass. Our code asks only whether a tensor is on a CPU, so the meta
# device stands for any other.
@pytest.mark.parametrize(
    'encoder, option, device',
    ([(*CASES[0], 'cuda')] if torch.__version__ >= (2, 7) else [])
    + [(*case, 'meta') for case in CASES],
)
def test_step_without_a_wait(encoder, option, device):
    with meta_device():
        model = build(encoder, **OPTIONS[option])
    with FakeTensorMode():
        fake(model, device)
        arguments = batch(device, option == 'weights')
        with NoWaits(), NoHostTensors():
            loss = model.loss(*arguments)['loss']
            assert loss.device.type == device and loss.requires_grad
            if device == 'meta':
                loss.backward()
    if device == 'meta':
        trained = [each for each in model.parameters() if each.requires_grad]
        assert trained and all(each.grad is not None for each in trained)


def fake(model, device):
    """Give a model fake weights; ``Module.to`` refuses them."""
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, each in kind.items():
                if each is not None:
                    kind[name] = torch.empty(
                        each.shape, dtype=each.dtype, device=device
                    )
        for name, each in module._parameters.items():
            if each is not None:
                module._parameters[name] = torch.nn.Parameter(each)


@needs_gpu
@pytest.mark.parametrize('encoder, option', CASES)
def test_step_on_a_gpu_without_a_wait(encoder, option):
    """PyTorch itself watches for synchronisations."""
    model = build(encoder, **OPTIONS[option]).cuda()
    arguments = batch('cuda', option == 'weights')
    model.loss(*arguments)['loss'].backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        model.loss(*arguments)['loss'].backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('device', ['cuda', 'meta'])
def test_the_watch_sees_waits(device):
    with FakeTensorMode():
        x = torch.empty(4, device=device)
        for wait in (
            lambda: torch.tensor([1, 2], device=device),
            lambda: torch.arange(2).to(device),
            lambda: x.cpu(),
            x.nonzero,
            lambda: x[x > 0],
            x.sum().item,
        ):
            with pytest.raises((AssertionError, RuntimeError)):
                with NoWaits(), NoHostTensors():
                    wait()
