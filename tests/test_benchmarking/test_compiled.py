"""The kernels of a compiled step against those of the eager one."""

import pytest
import torch
from mmengine.config import Config

from mmmixmim.benchmarking import Kernels, step_cost
from mmmixmim.benchmarking.compiled import compiled_kernels

from ..scripts import call

MODEL = """
default_scope = 'mmmixmim'
model = dict(
    type='MixMIM',
    backbone=dict(
        type='MixMIMTransformer',
        arch=dict(embed_dims=16, depths=[1], num_heads=[1]),
        img_size=16,
        window_size=4,
    ),
    neck=dict(
        type='MixMIMPretrainDecoder',
        decoder_embed_dims=16,
        decoder_depth=1,
        decoder_num_heads=1,
    ),
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[127], std=[57]),
)
"""


@pytest.mark.skipif(torch.__version__ < (2, 7), reason='other internals of Inductor')
@pytest.mark.slow
def test_compiling_saves_kernels_and_bytes_but_no_flops(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(MODEL)
    cfg = Config.fromfile(path)
    cfg.default_hooks = dict(compile=None)
    eager = step_cost(cfg, 64, precision='bf16', recompute='none').kernels
    compiled = compiled_kernels(cfg, 64)
    passes = ('forward', 'backward')
    before, after = (
        sum((kernels[phase].total() for phase in passes), Kernels())
        for kernels in (eager, compiled)
    )
    assert 0 < after.number < 0.75 * before.number
    assert after.size < 0.9 * before.size
    assert after.flops == before.flops
    rows = compiled['backward'].rows()
    names = ' '.join(rows)
    assert 'fused sum' in names and 'native_layer_norm_backward' in names
    # A GEMM writes the gradient of a weight in float32. Only the others are cast.
    assert not any(name.startswith('fused _to_copy ') for name in rows)
    # One kernel for each of the two FFNs computes gradients and sums them up.
    assert 'gelu_backward_sum' in names
    assert sum(row.number for name, row in rows.items() if 'gelu' in name) == 2
    total = [kernels['optimizer'].total() for kernels in (eager, compiled)]
    assert total[0] == total[1]

    cfg.default_hooks = dict(compile=dict(options=dict(combo_kernels=True)))
    joined = compiled_kernels(cfg, 64)['forward'].total()
    assert joined.number < compiled['forward'].total().number

    options = ('--batch-size', 64, '--compiled', '--rows', 4)
    result = call('benchmarks/roofline.py', path, *options, cwd=tmp_path)
    assert result.returncode == 0 and '| fused ' in result.stdout
    assert 'graph lowered for a GPU' in result.stdout
