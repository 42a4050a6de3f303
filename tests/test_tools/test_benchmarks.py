"""The benchmarks run, on a little work, and save what they print."""

import json

import pytest
from PIL import Image

from ..conftest import ROOT
from .test_tools import CLASSIFY, run, run_well


def saved(path):
    return json.loads(path.read_text()), path.with_suffix('.md').read_text()


def test_compare_speed(tmp_path):
    output = run_well(
        *('benchmarks/compare_speed.py', '--task', 'inference', '--arch', 'base'),
        *('--batch-size', 1, '--rounds', 2, '--memory', '--device', 'cpu'),
        *('--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    (result,) = record['results']
    assert table in output and record['machine']['threads'] >= 1
    assert result['difference'] < 1e-4
    assert {name: len(each) for name, each in result['seconds'].items()} == dict(
        ours=2, mmpretrain=2, floor=2
    )
    ratio = result['speed_over_mmpretrain']
    assert 0 < ratio['low'] <= ratio['median'] <= ratio['high']
    peaks = result['peak_bytes']
    assert result['memory_ratio'] == peaks['ours'] / peaks['mmpretrain'] > 0


def test_compare_loading(tmp_path):
    output = run_well(
        *('benchmarks/compare_loading.py', '--images', 2, '--rounds', 1),
        *('--workers', 0, '--batch-size', 2, '--iterations', 1),
        *('--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in output and record['images'] == 2
    assert set(record['pipelines']['images_per_second']) == {'ours', 'mmpretrain'}
    assert [(each['pipeline'], each['workers']) for each in record['training']] == [
        ('ours', 0),
        ('mmpretrain', 0),
    ]
    assert all(0 < each['share'] < 1 for each in record['training'])


def test_compare_loading_of_ones_own_images(image_folder, tmp_path):
    run_well(
        *('benchmarks/compare_loading.py', '--data-root', image_folder),
        *('--rounds', 1, '--workers', '--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, _ = saved(tmp_path / 'a.json')
    assert record['images'] == 5 and record['training'] == []
    result = run(
        *('benchmarks/compare_loading.py', '--data-root', tmp_path / 'nowhere'),
        cwd=tmp_path,
    )
    assert result.returncode != 0
    assert 'no image folder' in result.stderr and 'Traceback' not in result.stderr


@pytest.mark.slow
def test_growth(tmp_path):
    output = run_well(
        *('benchmarks/growth.py', '--batch-size', 1, 4, '--img-size', 64),
        *('--inference-size', 64, '--arch', 'base', '--rounds', 1),
        *('--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in output
    curves = record['curves']
    assert {name: len(each) for name, each in curves.items()} == dict(
        batch=2, image=1, inference=1, model=1
    )
    one, four = curves['batch']
    assert four['size'] == 4 and four['peak_bytes'] > 2 * one['peak_bytes']
    assert Image.open(tmp_path / 'a.png').size[0] > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [CLASSIFY, *sorted((ROOT / 'configs' / 'shapes').glob('*.py'))],
    ids=lambda path: path.stem,
)
def test_training_cost(config, tmp_path):
    output = run_well(
        *('benchmarks/training_cost.py', config, '--batch-size', 2, '--rounds', 3),
        *('--device', 'cpu', '--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in output and f'| {config.name} | 2 |' in table
    assert len(record['seconds']) == 3 and min(record['seconds']) > 0
    assert record['peak_bytes'] > 0 and record['parameters'] > 1e5


@pytest.mark.slow
def test_gpu_throughput_on_a_cpu(tmp_path):
    """All of it but the GPU's kernels and the search for its largest batch."""
    output = run_well(
        *('benchmarks/gpu_throughput.py', '--device', 'cpu', '--arch', 'base'),
        *('--batch-size', 1, '--precision', 'fp32', '--mode', 'eager', '--steps', 1),
        *('--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in output and record['matrix_flops'] > 1e9
    assert [each['model'] for each in record['results']] == ['ours', 'mmpretrain']
    for result in record['results']:
        assert 0 < result['mfu'] < 1 and result['peak_bytes'] > 1e8
        assert result['kernels']


def test_gpu_throughput_without_a_gpu(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    result = run('benchmarks/gpu_throughput.py', cwd=tmp_path)
    assert result.returncode != 0
    assert 'no CUDA device' in result.stderr and 'Traceback' not in result.stderr
