import argparse
import json
import subprocess
import sys

import numpy as np
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
    floor,
    gemm_floor,
    interleave,
    largest_batch,
    linear_shapes,
    machine,
    make_pipelines,
    make_workloads,
    matrix_rate,
    pairwise_ratio,
    save_report,
    training_step,
    waiting_share,
    write_photos,
)
from mmmixmim.models import TokenOwnership
from mmmixmim.registry import MODELS

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


def gemm_flops(shapes, backward):
    """FLOPs of the floor, two per multiply-accumulate."""
    macs = sum(m * k * n * times for (m, k, n), times in shapes.items())
    return 2 * macs * (3 if backward else 1)


def test_floor_counts_the_linear_layers():
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2), nn.Linear(2, 2))
    shapes = linear_shapes(model, lambda: model(torch.randn(4, 7, 3)))
    assert shapes == {(28, 3, 5): 1, (28, 5, 2): 1, (28, 2, 2): 1}
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_floor_has_the_products_of_a_training_step():
    """Without gradients the FFN runs in chunks, in training it does not."""
    arch = dict(embed_dims=128, depths=[1, 1, 1, 1], num_heads=[4, 8, 16, 32])
    ours = make_workloads(Setting('pretrain', arch, 4), ('ours',))['ours']
    shapes = linear_shapes(ours.model, ours.forward)
    assert shapes[4 * 56 * 56, 128, 512] == 1 and shapes[4 * 28 * 28, 1024, 256] == 1


@pytest.mark.skipif(floor.ONEDNN_LINEAR is None, reason='needs oneDNN')
@pytest.mark.parametrize(
    'fastest', ['mm', 'oneDNN, rows', 'oneDNN', 'oneDNN, transposed']
)
def test_floor_takes_the_faster_library(monkeypatch, fastest):
    def timed(candidates, rounds):
        return {name: [1.0 if name == fastest else 2.0] for name in candidates}

    monkeypatch.setattr(floor, 'interleave', timed)
    a, b = torch.rand(3, 4), torch.rand(4, 5)
    taken = []
    ways = {
        name: lambda name=name, way=way: taken.append(name) or way()
        for name, way in floor.ways_to_multiply(a, b).items()
    }
    monkeypatch.setattr(floor, 'ways_to_multiply', lambda a, b: ways)
    torch.testing.assert_close(floor._fastest(a, b)(), a @ b)
    assert taken == [fastest]


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
    run = gemm_floor(shapes, backward, 'cpu')  # times both libraries
    with FlopCounterMode(display=False) as counter:
        run()
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


def test_peak_memory_is_that_of_the_step_alone():
    """Neither memory that is held nor an earlier peak counts."""
    code = (
        'import torch\n'
        'from mmmixmim.benchmarking import peak_memory\n'
        'held = torch.ones(2**25)\n'
        'torch.ones(2**26).sum()\n'
        'print(peak_memory(lambda: torch.ones(2**24).sum(), "cpu"))'
    )
    command = [sys.executable, '-c', code]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    assert 60 < int(output.stdout.split()[-1]) / 2**20 < 90


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


def test_waiting_share_leaves_the_warm_up_out(tmp_path, monkeypatch):
    times = {'train/time': [90, 90, 90, 1, 3], 'train/data_time': [80, 80, 80, 0, 1]}
    asked = []

    class FakeRunner:
        def __init__(self, **kwargs):
            asked.append(kwargs)
            self.message_hub = self

        def get_scalar(self, name):
            return argparse.Namespace(data=(np.array(times[name]), None))

        def train(self):
            pass

    monkeypatch.setattr('mmmixmim.benchmarking.loading.Runner', FakeRunner)
    arguments = (tmp_path, tmp_path / 'work', PIPELINES['ours'], dict(type='Any'))
    figures = waiting_share(*arguments, workers=2, batch_size=7, iterations=2)
    assert figures == dict(seconds=2, waiting=0.5, share=0.25)
    loader = asked[0]['train_dataloader']
    assert (loader['num_workers'], loader['batch_size']) == (2, 7)
    assert loader['persistent_workers'] and asked[0]['train_cfg']['max_iters'] == 5


def test_report(tmp_path):
    path = tmp_path / 'new' / 'a.json'
    save_report(path, dict(a=1), '| a |')
    assert json.loads(path.read_text()) == dict(a=1)
    assert path.with_suffix('.md').read_text() == '| a |\n'
    assert path.read_text().endswith('}\n')


@pytest.mark.parametrize(
    'room, found', [(0, 0), (1, 1), (5, 5), (16, 16), (100, 96), (10000, 4096)]
)
def test_largest_batch_to_an_eighth(room, found):
    assert largest_batch(lambda batch: batch <= room) == found


def test_matrix_rate_counts_two_per_mac():
    assert 1e6 < matrix_rate('cpu', torch.float32, size=128) < 1e15


def test_matrix_rate_is_that_of_the_median_round(monkeypatch):
    def seconds_of(function, rounds, device):
        function()
        return [0.1, 0.5, 9.0]

    monkeypatch.setattr('mmmixmim.benchmarking.throughput.seconds_of', seconds_of)
    assert matrix_rate('cpu', torch.float32, size=10) == 2 * 10**3 / 0.5


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


def test_functions_of_autograd_are_no_kernels():
    x = torch.randn(1, 1, 4, 8, requires_grad=True)
    kernel = torch.nn.functional.scaled_dot_product_attention
    names = attention_kernels(lambda: kernel(x, x, x).sum().backward())
    assert any('backward' in name for name in names)
    assert not any('autograd' in name for name in names)


@pytest.mark.parametrize('task', TASKS)
def test_models_are_in_the_mode_of_their_task(task):
    for workload in make_workloads(Setting(task, TINY, 2, 64)).values():
        assert workload.model.training == (task != 'inference')


def test_both_models_get_half_of_the_cells(monkeypatch):
    masks = []

    def ownership(mask):
        masks.append(mask)
        return TokenOwnership(mask)

    monkeypatch.setattr('mmmixmim.benchmarking.workloads.TokenOwnership', ownership)
    theirs = make_workloads(Setting('pretrain', TINY, 2, 96))['mmpretrain']
    (mask,) = masks
    assert mask.shape == (1, 3, 3) and mask.sum() == 4
    coarse = theirs.model.backbone.random_masking(None, 0.5)[-1]
    assert torch.equal(coarse.flatten(), mask.flatten())


@pytest.mark.parametrize(
    'options, windows',
    [
        (dict(), [14, 14, 14, 7]),
        (dict(img_size=448), [28, 28, 28, 14]),
        (dict(window=7), [7, 7, 7, 7]),
        (dict(window=16, img_size=128), [16, 16, 8, 4]),
        (dict(task='dense', img_size=512), [16, 16, 16, 16]),
        (dict(task='dense', img_size=64), [16, 8, 4, 2]),
    ],
)
def test_windows(options, windows, monkeypatch):
    """Those of both implementations are given by the setting."""
    given = []
    build = MODELS.build

    def record(config):
        given.append(config['backbone']['window_size'])
        return build(config)

    monkeypatch.setattr(MODELS, 'build', record)
    options = dict(task='inference') | options
    make_workloads(Setting(arch=TINY, batch_size=1, **options), ('ours',))
    assert given[0] == windows


@pytest.mark.parametrize('task', TASKS)
def test_forward_is_compiled_on_request(task, monkeypatch):
    compiled = []
    modes = []

    def compile(part, mode):
        compiled.append(part)
        modes.append(mode)
        return part

    monkeypatch.setattr(torch, 'compile', compile)
    make_workloads(Setting(task, TINY, 1, 64))
    assert not compiled
    mode = 'reduce-overhead'
    make_workloads(Setting(task, TINY, 1, 64, compiled=True, compile_mode=mode))
    assert len(compiled) == 2 and modes == [mode, mode]


def test_machine_has_the_threads_of_the_process():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert machine()['threads'] == 3
    finally:
        torch.set_num_threads(before)
    assert machine()['torch'] == torch.__version__ and machine()['device']
