import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn

from mmmixmim.benchmarking import (
    IMPLEMENTATIONS,
    PIPELINES,
    TASKS,
    Setting,
    attention_kernels,
    gemm_floor,
    gemm_flops,
    interleave,
    largest_batch,
    linear_shapes,
    make_pipelines,
    make_workloads,
    matrix_rate,
    pairwise_ratio,
    save_report,
    training_step,
    waiting_share,
    write_photos,
)

TINY = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


def setting(task, **kwargs):
    size = 512 if task == 'dense' else 224
    return Setting(task, TINY, batch_size=2, img_size=size, **kwargs)


def patch_embedding(workload):
    return next(p for p in workload.model.backbone.parameters() if p.ndim == 4)


@pytest.mark.parametrize('task', TASKS)
def test_both_models_do_the_same_work(task):
    """The same weights give the same results and gradients."""
    workloads = make_workloads(setting(task))
    results = {name: workloads[name]() for name in IMPLEMENTATIONS}
    torch.testing.assert_close(results['ours'], results['mmpretrain'])
    grads = [patch_embedding(workloads[name]).grad for name in IMPLEMENTATIONS]
    if task == 'inference':
        assert grads == [None, None]
    else:
        torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_low_precision_agrees(precision):
    small = dict(arch=TINY, batch_size=2, img_size=96)
    low = make_workloads(Setting(precision=precision, **small), ('ours',))['ours']
    full = make_workloads(Setting(**small), ('ours',))['ours']
    torch.testing.assert_close(low().float(), full(), rtol=2e-2, atol=0)


def test_gradients_do_not_pile_up():
    workload = make_workloads(setting('pretrain'), ('ours',))['ours']
    workload()
    weight = patch_embedding(workload)
    first = weight.grad.clone()
    workload()
    assert torch.equal(weight.grad, first)
    workload.accumulate()
    torch.testing.assert_close(weight.grad, 2 * first)


def test_floor_counts_the_linear_layers():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2), nn.Linear(2, 2))
    shapes = linear_shapes(model, lambda: model(torch.randn(4, 7, 3)))
    assert shapes == {(28, 3, 5): 1, (28, 5, 2): 1, (28, 2, 2): 1}
    macs = 28 * (3 * 5 + 5 * 2 + 2 * 2)
    assert gemm_flops(shapes, backward=False) == 2 * macs
    assert gemm_flops(shapes, backward=True) == 6 * macs
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_floor_has_the_products_of_a_training_step():
    """Without gradients the FFN runs in chunks, in training it does not."""
    arch = dict(embed_dims=128, depths=[1, 1, 1, 1], num_heads=[4, 8, 16, 32])
    ours = make_workloads(Setting('pretrain', arch, 4), ('ours',))['ours']
    shapes = linear_shapes(ours.model, ours.forward)
    assert shapes[4 * 56 * 56, 128, 512] == 1 and shapes[4 * 28 * 28, 1024, 256] == 1


def test_floor_counts_through_a_compiled_model():
    """Compiled models skip the hooks that count."""
    shapes = []
    for compiled in (False, True):
        ours = make_workloads(setting('pretrain', compiled=compiled), ('ours',))['ours']
        shapes.append(linear_shapes(ours.model, ours.forward))
    assert shapes[0] == shapes[1] and shapes[0].total() > 20


@pytest.mark.parametrize('backward', [False, True])
def test_floor_runs_all_products(backward):
    from torch.utils.flop_counter import FlopCounterMode

    shapes = linear_shapes(model := nn.Linear(8, 4), lambda: model(torch.randn(16, 8)))
    with FlopCounterMode(display=False) as counter:
        gemm_floor(shapes, backward, 'cpu')()
    assert counter.get_total_flops() == gemm_flops(shapes, backward)


def test_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in 'abc'}
    seconds = interleave(functions, rounds=2)
    assert ''.join(calls) == 'abc' + 'bca' + 'cab'
    assert {name: len(values) for name, values in seconds.items()} == dict(
        a=2, b=2, c=2
    )


def test_ratio_of_the_same_rounds():
    assert pairwise_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == dict(
        low=2.5, median=3.0, high=3.5
    )
    assert pairwise_ratio([2.0], [4.0]) == dict(low=0.5, median=0.5, high=0.5)


def test_peak_memory_grows_with_the_batch():
    """In a new process for each batch, since earlier runs leave memory behind."""
    code = (
        'from mmmixmim.benchmarking import *\n'
        'setting = Setting("pretrain", {}, batch_size={})\n'
        'workload = make_workloads(setting, ("ours",))["ours"]\n'
        'print(peak_memory(workload.accumulate, "cpu"))'
    )
    peaks = []
    for batch in (2, 12):
        command = [sys.executable, '-c', code.format(TINY, batch)]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(output.stdout.split()[-1]))
    assert peaks[1] > 3 * peaks[0] > 0


def test_photos_and_both_pipelines(tmp_path):
    write_photos(tmp_path, 3, size=(90, 120))
    paths = sorted(tmp_path.glob('*.jpg'))
    assert [Image.open(path).size for path in paths] == [(120, 90)] * 3
    assert len({path.read_bytes() for path in paths}) == 3
    for pipeline in make_pipelines().values():
        inputs = pipeline(dict(img_path=str(paths[0])))['inputs']
        assert inputs.shape == (3, 224, 224) and inputs.dtype == torch.uint8


def test_waiting_share(tmp_path):
    write_photos(tmp_path / 'photos', 8, size=(90, 120))
    model = dict(
        type='MixMIM',
        backbone=dict(type='MixMIMTransformer', arch=TINY),
        neck=dict(type='MixMIMPretrainDecoder', decoder_depth=1, decoder_embed_dims=32),
        data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127], std=[57]),
    )
    figures = waiting_share(
        tmp_path / 'photos', tmp_path, PIPELINES['ours'], model, 0, 2, iterations=2
    )
    assert 0 < figures['waiting'] < figures['seconds']
    assert figures['share'] == figures['waiting'] / figures['seconds']


def test_report(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    save_report(path, dict(a=1), '| a |')
    assert json.loads(path.read_text()) == dict(a=1)
    assert path.with_suffix('.md').read_text() == '| a |\n'


@pytest.mark.parametrize(
    'room, found', [(0, 0), (1, 1), (5, 5), (16, 16), (100, 96), (10000, 4096)]
)
def test_largest_batch_to_an_eighth(room, found):
    assert largest_batch(lambda batch: batch <= room) == found


def test_matrix_rate_counts_two_per_mac():
    assert 1e6 < matrix_rate('cpu', torch.float32, size=128, rounds=3) < 1e15


def test_training_step_trains():
    workload = make_workloads(setting('pretrain'), ('ours',))['ours']
    weight = patch_embedding(workload)
    before = weight.detach().clone()
    training_step(workload)()
    assert not torch.equal(weight, before)


def test_attention_kernels_are_named():
    x = torch.randn(1, 1, 4, 8)
    kernel = torch.nn.functional.scaled_dot_product_attention
    assert any(
        'attention' in name for name in attention_kernels(lambda: kernel(x, x, x))
    )
    assert attention_kernels(lambda: x + x) == []
