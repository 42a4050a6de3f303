"""The benchmarks run on small workloads and save what they print."""

import json
import re
from itertools import islice

import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from mmmixmim.benchmarking import Setting
from mmmixmim.validation import UserError

from ..scripts import (
    CLASSIFY,
    NO_WORKERS,
    ONE_ITERATION,
    PRETRAIN,
    SHAPES,
    call,
    error_line,
    load,
    passed,
    run,
)

TINY = dict(embed_dims=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])


def run_well(*arguments, cwd):
    return passed(run(*arguments, cwd=cwd))


def saved(path):
    return json.loads(path.read_text()), path.with_suffix('.md').read_text()


def test_compare_speed(tmp_path, monkeypatch, capsys):
    """With a small model. The processes that measure memory run the script itself."""
    script = load('benchmarks/compare_speed.py')
    settings = [Setting('finetune', TINY, 2, 64)]
    monkeypatch.setattr(script, 'settings', lambda args: settings)
    arguments = ['--rounds', '2', '--memory', '--device', 'cpu']
    output = ['--output', str(tmp_path / 'a.json')]
    monkeypatch.setattr('sys.argv', ['compare_speed.py', *arguments, *output])
    script.main()
    record, table = saved(tmp_path / 'a.json')
    output = capsys.readouterr().out
    (result,) = record['results']
    assert table in output and record['machine']['threads'] >= 1
    assert result['difference'] < 1e-4
    assert {name: len(each) for name, each in result['seconds'].items()} == dict(
        ours=2, mmpretrain=2, floor=2
    )
    ratio = result['speed_over_mmpretrain']
    assert 0 < ratio['low'] <= ratio['median'] <= ratio['high']
    for kind in ('memory_of_tensors', 'memory_of_process'):
        peaks = result[kind]['bytes']
        assert result[kind]['ratio'] == peaks['ours'] / peaks['mmpretrain'] > 0


def test_compare_loading(tmp_path):
    output = run_well(
        *('benchmarks/compare_loading.py', '--images', 2, '--rounds', 1),
        *('--workers', 0, '--batch-size', 2, '--iterations', 1),
        *('--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in output and record['images'] == 2
    assert '\n| shards images/s | folder images/s | ratio |' in table
    speeds = record['pipelines']['images_per_second']
    assert set(speeds) == {'ours', 'mmpretrain', 'shards'}
    assert [(each['pipeline'], each['workers']) for each in record['training']] == [
        ('ours', 0),
        ('mmpretrain', 0),
    ]
    assert all(0 < each['share'] < 1 for each in record['training'])


def test_compare_loading_of_ones_own_images(image_folder, tmp_path):
    threads = torch.get_num_threads()
    result = call(
        *('benchmarks/compare_loading.py', '--data-root', image_folder),
        *('--rounds', 1, '--workers', '--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    record, table = saved(tmp_path / 'a.json')
    assert table in passed(result) and 'share' not in table
    assert record['images'] == 5 and record['training'] == []
    assert torch.get_num_threads() == threads
    result = call(
        *('benchmarks/compare_loading.py', '--data-root', tmp_path / 'nowhere'),
        cwd=tmp_path,
    )
    assert str(tmp_path / 'nowhere') in error_line(result)


def test_growth(tmp_path, monkeypatch, capsys):
    """With small models. The measuring processes run the script itself."""
    script = load('benchmarks/growth.py')
    small = dict(
        batch=[(str(batch), Setting('pretrain', TINY, batch, 64)) for batch in (4, 32)],
        inference=[('64 px', Setting('inference', TINY, 1, 64, window=16))],
    )
    monkeypatch.setattr(script, 'series', lambda args: small)
    output = ['--output', str(tmp_path / 'a.json')]
    monkeypatch.setattr('sys.argv', ['growth.py', '--rounds', '2', *output])
    script.main()
    record, table = saved(tmp_path / 'a.json')
    assert table in capsys.readouterr().out
    curves = record['curves']
    assert {name: len(each) for name, each in curves.items()} == dict(
        batch=2, inference=1
    )
    few, many = curves['batch']
    assert (few['size'], many['size']) == (4, 32) and few['seconds'] > 0
    assert many['peak_bytes'] > 3 * few['peak_bytes'] > 0
    assert few['parameters'] == many['parameters'] > 1e5
    assert Image.open(tmp_path / 'a.png').size[0] > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    'config',
    [CLASSIFY, *sorted(SHAPES.glob('*.py'))],
    ids=lambda path: path.stem,
)
def test_training_cost(config, tmp_path):
    start = run if config == CLASSIFY else call
    result = start(
        *('benchmarks/training_cost.py', config, '--batch-size', 2, '--rounds', 3),
        *('--device', 'cpu', '--output', tmp_path / 'a.json'),
        cwd=tmp_path,
    )
    output = passed(result)
    record, table = saved(tmp_path / 'a.json')
    assert table in output and f'| {config.name} | 2 |' in table
    assert len(record['seconds']) == 3 and min(record['seconds']) > 0
    assert record['peak_bytes'] > 0 and record['parameters'] > 1e5


def test_share_of_the_measures_is_printed(tmp_path):
    result = call(
        *('benchmarks/measures_cost.py', PRETRAIN, '--cfg-options', *ONE_ITERATION),
        'train_cfg.val_interval=1',
        cwd=tmp_path,
    )
    assert re.search(r'measures take \d+\.\d% of the training', passed(result))


def test_gpu_throughput_on_a_cpu(tmp_path, monkeypatch, capsys):
    """Everything except GPU kernels and the largest batch, with a small model.

    The measuring processes run the script itself.
    """
    script = load('benchmarks/gpu_throughput.py')
    arguments = '--device cpu --batch-size 2 --precision bf16 --mode eager --steps 1'
    arguments += ' --recompute blocks --low-precision-norms'
    output = ['--output', str(tmp_path / 'a.json')]
    monkeypatch.setattr('sys.argv', ['gpu_throughput.py', *arguments.split(), *output])
    args = script.parse_args()
    args.arch = [TINY]
    monkeypatch.setattr(script, 'parse_args', lambda: args)
    rows, measured = [], script.in_a_process

    def watched(*arguments):
        rows.append(len(saved(args.output)[0]['results']) if rows[1:] else 0)
        return measured(*arguments)

    monkeypatch.setattr(script, 'in_a_process', watched)
    script.main()
    assert rows == [0, 0, 1]  # the card, and what is saved before each row
    record, table = saved(tmp_path / 'a.json')
    assert table in capsys.readouterr().out and record['matrix_flops'] > 1e9
    assert [each['model'] for each in record['results']] == ['ours', 'mmpretrain']
    for result in record['results']:
        assert result['batch_size'] == 2 and result['peak_bytes'] > 1e5
        assert result['kernels'] and len(result['seconds']) == 1
        flops = result['images_per_second'] * script.useful_flops(TINY)
        assert result['mfu'] == pytest.approx(flops / record['matrix_flops'])


def test_gpu_throughput_without_a_gpu(tmp_path):
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    for device in ('cuda', 'cuda:0'):
        result = call('benchmarks/gpu_throughput.py', '--device', device, cwd=tmp_path)
        assert 'No CUDA device' in error_line(result)


def test_the_largest_batch_is_measured_on_request(throughput, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['gpu_throughput.py'])
    assert throughput.parse_args().batch_size == [128]
    sizes = ['--batch-size', '4', 'largest', '--device', 'cpu']
    monkeypatch.setattr('sys.argv', ['gpu_throughput.py', *sizes])
    assert throughput.parse_args().batch_size == [4, 0]
    with pytest.raises(SystemExit, match='largest needs a GPU.* --device cpu'):
        throughput.main()


def test_a_measurement_may_take_too_long(throughput):
    result = throughput.in_a_process('card', Setting(), 1, 0.01)
    assert 'given up after 0.01 s: raise --timeout' in result['error']


# gemm_libraries.py


def test_gemm_libraries(monkeypatch, capsys):
    script = load('benchmarks/gemm_libraries.py')
    monkeypatch.setattr('sys.argv', ['x', '--batch-size', '1', '--rounds', '1'])
    args = script.parse_args()
    args.arch = TINY
    monkeypatch.setattr(script, 'parse_args', lambda: args)
    script.main()
    printed = capsys.readouterr().out
    for product in ('outputs', 'gradients of inputs', 'gradients of weights', 'all'):
        row = next(x for x in printed.splitlines() if x.startswith(f'| {product} |'))
        *ways, rule, best = map(float, row.split('|')[2:7])
        assert best <= min(ways) and rule > 0
    assert 'Clearly slower than the best:' in printed


# compare_speed.py


@pytest.fixture(scope='module')
def speed():
    return load('benchmarks/compare_speed.py')


def test_settings_are_all_combinations(speed, monkeypatch):
    monkeypatch.setattr('sys.argv', ['x', '--device', 'cpu', '--arch', 'base'])
    settings = speed.settings(speed.parse_args())
    assert [(s.task, s.batch_size, s.img_size) for s in settings] == [
        ('pretrain', 4, 224),
        ('finetune', 4, 224),
        ('inference', 1, 224),
        ('inference', 32, 224),
        ('dense', 1, 512),
        ('dense', 1, 1024),
    ]
    arguments = '--task dense --batch-size 2 3 --img-size 64 --precision bf16 fp32'
    arguments += ' --arch large huge --compile --device cpu'
    monkeypatch.setattr('sys.argv', ['x', *arguments.split()])
    settings = speed.settings(speed.parse_args())
    assert settings == [
        Setting('dense', arch, batch, 64, 'cpu', precision, True)
        for arch in ('large', 'huge')
        for batch in (2, 3)
        for precision in ('bf16', 'fp32')
    ]


@pytest.mark.parametrize(
    'ours, theirs, error', [(2.0, 2.0, 0), (-1.0, 2.0, 1.5), (2.0, 2.5, 0.2)]
)
def test_disagreement_is_relative_to_mmpretrain(speed, ours, theirs, error):
    results = dict(ours=torch.tensor([0, ours]), mmpretrain=torch.tensor([0, theirs]))
    workloads = {name: lambda value=value: value for name, value in results.items()}
    assert speed.check_agreement(workloads, 2) == pytest.approx(error)
    if error:
        with pytest.raises(UserError, match='differ by .* Nothing was timed'):
            speed.check_agreement(workloads, error * 0.99)
    workloads['ours'] = lambda: torch.tensor([0, torch.nan])
    with pytest.raises(UserError, match='nan'):
        speed.check_agreement(workloads, 2)


def test_ratios_are_those_of_their_names(speed, monkeypatch):
    seconds = dict(ours=[2.0], mmpretrain=[6.0], floor=[1.0])
    monkeypatch.setattr(speed, 'interleave', lambda *args: seconds)
    setting = Setting('inference', TINY, 1, 64)
    result = speed.measure_speed(setting, 1)
    assert result['speed_over_mmpretrain']['median'] == 3
    assert result['time_over_floor']['median'] == 2
    assert result['mmpretrain_over_floor']['median'] == 6
    cells = dict(zip(speed.HEAD, speed.row(vars(setting) | result), strict=True))
    assert cells['ours s'] == '2.000' and cells['mmpretrain s'] == '6.000'
    assert cells['speed over mmpretrain'] == '3.00 (3.00-3.00)'
    assert (
        cells['time over floor'] == '2.00 (2.00-2.00)'
        and cells['tensors: ratio'] == '-'
    )


def test_memory_alone(speed):
    memory = dict(bytes=dict(ours=2**30, mmpretrain=2**31), ratio=0.5)
    result = vars(Setting()) | dict(memory_of_tensors=memory, compiled=True)
    cells = dict(zip(speed.HEAD, speed.row(result), strict=True))
    assert cells['precision'] == 'fp32 compiled' and cells['ours s'] == '-'
    assert cells["tensors: GiB, of mmpretrain's"] == '1.00 of 2.00'
    assert cells['tensors: ratio'] == '0.500' and cells['process: ratio'] == '-'


# growth.py


@pytest.fixture(scope='module')
def growth():
    return load('benchmarks/growth.py')


def test_slopes_are_logarithmic(growth):
    points = [
        dict(label=str(size), size=size, seconds=seconds, peak_bytes=2**30 * size)
        for size, seconds in ((1, 1), (4, 2), (8, 8))
    ]
    rows = growth.rows(dict(batch=points))
    assert [row[4] for row in rows] == ['-', '0.50', '2.00']
    assert [row[6] for row in rows] == ['-', '1.00', '1.00']
    assert rows[1][:4] == ['batch', '4', '4', '2.000'] and rows[1][5] == '4.00'


def test_curves_are_drawn_over_their_own_quantity(growth):
    setting = Setting(batch_size=3, img_size=64)
    sizes = {
        name: growth.size_of(name, setting, dict(parameters=9))
        for name in ('batch', 'image', 'inference', 'model')
    }
    assert sizes == dict(batch=3, image=64**2, inference=64**2, model=9)


def test_points_of_the_curves(growth, monkeypatch):
    monkeypatch.setattr('sys.argv', ['x', '--precision', 'bf16'])
    curves = growth.series(growth.parse_args())
    assert {
        name: [label for label, _ in points] for name, points in curves.items()
    } == (
        dict(
            batch=['1', '2', '4', '8', '16'],
            image=['128 px', '224 px', '320 px', '512 px'],
            inference=['256 px', '512 px', '1024 px'],
            model=['base', 'large', 'huge'],
        )
    )
    settings = [setting for points in curves.values() for _, setting in points]
    assert {setting.precision for setting in settings} == {'bf16'}
    first = {name: points[0][1] for name, points in curves.items()}
    common = dict(precision='bf16')
    assert first == dict(
        batch=Setting('pretrain', 'base', 1, 224, **common),
        image=Setting('pretrain', 'base', 2, 128, **common),
        inference=Setting('inference', 'base', 1, 256, window=16, **common),
        model=Setting('pretrain', 'base', 1, 224, **common),
    )


def test_single_points_need_no_plot(growth, tmp_path):
    growth.draw(dict(batch=[dict()]), tmp_path / 'a.png')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('script', ['growth', 'speed'])
def test_errors_of_a_process_end_the_benchmark(script, request, capfd):
    setting = Setting('pretrain', dict(embed_dims=1), 1)
    script = request.getfixturevalue(script)
    measure = getattr(script, 'measure_memory', None)
    with pytest.raises(SystemExit) as error:
        measure(setting) if measure else script.in_a_process(setting, 1)
    assert error.value.code == 1
    assert capfd.readouterr().err.splitlines()[-1].startswith('error: ')


# gpu_throughput.py


@pytest.fixture(scope='module')
def throughput():
    return load('benchmarks/gpu_throughput.py')


def test_useful_flops_are_those_of_three_forward_passes(throughput):
    """Attention, 3 % here, counts too. Its size depends a little on the mask."""
    from mmmixmim.benchmarking import make_workloads
    from mmmixmim.evaluation import complexity

    model = make_workloads(Setting('pretrain', TINY, 2), ('ours',))['ours'].model
    macs = complexity(model, torch.randn(2, 3, 224, 224), mode='loss')['total']['macs']
    flops = 3 * 2 * macs  # a multiplication and an addition, three times
    assert throughput.useful_flops(TINY) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize('free', [0, 5])
def test_batch_of_zero_is_the_largest_that_fits(throughput, monkeypatch, free):
    asked = []

    def fits(name, setting):
        assert not setting.compiled
        asked.append(setting.batch_size)
        return setting.batch_size <= free

    monkeypatch.setattr(throughput, 'fits', fits)
    setting = Setting('pretrain', TINY, 0, 64, compiled=not free)
    if not free:
        with pytest.raises(UserError, match='Not even one image'):
            throughput.measure('ours', setting, 1)
        return
    result = throughput.measure('ours', setting, 2)
    assert result['batch_size'] == 5 and len(result['seconds']) == 2
    median = sum(result['seconds']) / 2
    assert result['images_per_second'] == pytest.approx(5 / median)
    assert setting.batch_size == 0 and 6 in asked


@pytest.mark.parametrize(
    'message, fits',
    [
        ('CUDA out of memory. Tried', False),
        ('CUBLAS_STATUS_ALLOC_FAILED', False),
        ('', True),
        ('shapes do not match', None),
    ],
)
def test_full_memory_is_told_from_bugs(throughput, monkeypatch, message, fits):
    def workloads(setting, names):
        if message:
            raise RuntimeError(message)
        return dict(ours=None)

    monkeypatch.setattr(throughput, 'make_workloads', workloads)
    monkeypatch.setattr(throughput, 'training_step', lambda workload: lambda: None)
    if fits is None:
        with pytest.raises(RuntimeError, match=message):
            throughput.fits('ours', Setting())
    else:
        assert throughput.fits('ours', Setting()) is fits


def test_rows_of_results_and_errors(throughput):
    common = dict(arch='base', model='ours', mode='eager', batch_size=0)
    assert throughput.row(common | dict(error='a | b')) == [
        *('base', 'ours', 'eager', 'largest', *'----', 'a / b')
    ]
    result = dict(
        images_per_second=12.34,
        mfu=0.5,
        peak_bytes=2**29,
        first_step=61.25,
        kernels=['a', 'b'],
    )
    assert throughput.row(common | dict(batch_size=8) | result) == [
        *('base', 'ours', 'eager', '8', '12.3', '50.0%', '0.50', '61.2', 'a, b')
    ]


def test_errors_of_a_process_are_results(throughput):
    setting = Setting('pretrain', dict(embed_dims=1), 3)
    result = throughput.in_a_process('ours', setting, 1)
    assert set(result) == {'batch_size', 'error'} and result['batch_size'] == 3
    assert result['error'] and not result['error'].startswith('error:')


# training_cost.py


def test_steps_accumulate_in_the_precision_asked_for():
    script = load('benchmarks/training_cost.py')
    types = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)
            self.data_preprocessor = torch.nn.Identity()
            self.data_preprocessor.forward = lambda batch, training: batch
            self.data_preprocessor.device = torch.device('cpu')

        def forward(self, x, mode):
            assert mode == 'loss'
            types.append((y := self.layer(x)).dtype)
            return y.sum()

        def parse_losses(self, loss):
            return loss, {}

    model = Model()
    for precision in ('fp32', 'bf16'):
        model.zero_grad()
        step = script.training_step(model, dict(x=torch.ones(3, 2)), precision)
        step()
        step()
        assert model.layer.bias.grad.item() == 6
    assert types == [torch.float32] * 2 + [torch.bfloat16] * 2


# compare_loading.py


def test_pipelines_are_compared_on_one_thread(monkeypatch):
    script = load('benchmarks/compare_loading.py')
    threads, read = [], []
    pipelines = {
        name: lambda results, name=name: read.append((name, results['img_path']))
        for name in ('ours', 'mmpretrain')
    }

    def interleave(functions, rounds):
        threads.append(torch.get_num_threads())
        for function in functions.values():
            function()
        return dict(ours=[2.0], mmpretrain=[3.0])

    monkeypatch.setattr(script, 'make_pipelines', lambda: pipelines)
    monkeypatch.setattr(script, 'interleave', interleave)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        record = script.compare_pipelines(['a', 'b'], 1)
        assert threads == [1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert read == [(name, path) for name in ('ours', 'mmpretrain') for path in 'ab']
    assert record['images_per_second'] == dict(ours=1.0, mmpretrain=2 / 3)
    assert record['speed_over_mmpretrain']['median'] == 1.5


def test_shards_hold_the_images_that_are_compared(image_folder, tmp_path):
    script = load('benchmarks/compare_loading.py')
    paths = [str(image_folder / name) for name in ('a.jpg', 'b.png', 'deep/d.png')]
    (tmp_path / 'packed').mkdir()
    with DefaultScope.overwrite_default_scope('mmmixmim'):
        shards = script.shards_of(paths, tmp_path / 'packed')
        samples = list(islice(shards, 6))
    names = [sample['data_samples'].img_path for sample in samples]
    assert len(set(names)) == 3 and sorted(names[:3]) == sorted(names[3:])
    assert all(sample['inputs'].shape == (3, 224, 224) for sample in samples)


def test_tables_of_loading():
    script = load('benchmarks/compare_loading.py')
    ratio = dict(low=1, median=1.5, high=2)
    speeds = dict(ours=150, mmpretrain=100)
    pipelines = dict(images_per_second=speeds, speed_over_mmpretrain=ratio)
    row = dict(pipeline='ours', workers=2, seconds=1, waiting=0.25, share=0.25)
    text = script.tables(dict(pipelines=pipelines, training=[row]))
    assert '| 150 | 100 | 1.50 (1.00-2.00) |' in text
    assert '| ours | 2 | 1.000 | 0.2500 | 25.0% |' in text
    assert 'shards' not in text
    speeds['shards'], pipelines['shards_over_folder'] = 300, ratio
    text = script.tables(dict(pipelines=pipelines, training=[]))
    assert text.endswith('\n| 300 | 150 | 1.50 (1.00-2.00) |')


def test_roofline(tmp_path):
    output = passed(
        call(
            'benchmarks/roofline.py',
            PRETRAIN,
            '--batch-size',
            4,
            '--rows',
            3,
            cwd=tmp_path,
        )
    )
    assert "recompute='none'" in output and output.count('\n| forward |') <= 3
    assert '| all |' in output


def test_losses_in_low_precision(tmp_path):
    options = ('--epochs', 1, '--seeds', 0, '--cfg-options', NO_WORKERS)
    options += ('train_dataloader.num_batch_per_epoch=2', 'val_cfg.max_images=8')
    output = passed(
        call(
            'benchmarks/low_precision.py', '--config', PRETRAIN, *options, cwd=tmp_path
        )
    )
    rows = [line.split(' | ') for line in output.splitlines() if line[:3] == '| 0']
    assert [row[1] for row in rows] == [
        'bfloat16',
        'bfloat16, low_precision_norms',
        'float32',
    ]
    losses = [float(row[2]) for row in rows]
    assert losses == pytest.approx([losses[2]] * 3, rel=2e-2)
