"""Plan, resuming, table and figures of tools/compare_methods.py and its modules."""

import argparse
import json
import statistics
from dataclasses import asdict

import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from mmmixmim.models import MixMIMSwinTransformer, MixMIMTransformer
from mmmixmim.registry import MODELS
from mmmixmim.runtime import write_json
from mmmixmim.validation import UserError

from ..scripts import call, error_line, load, passed

CLASSES = dict(mixmim=MixMIMTransformer, swin=MixMIMSwinTransformer)


@pytest.fixture(scope='module')
def script():
    return load('compare_methods.py')


@pytest.fixture(scope='module')
def ablations():
    return load('ablation_runs.py')


@pytest.fixture(scope='module')
def report():
    return load('ablation_report.py')


def test_equal_compute_divides_the_epochs_by_the_cost(script):
    costs = dict(mixmim=dict(mixmim=1.0, mask_token=0.8, k4=2.0, unblocked=1.01))
    arms = ['mixmim', 'mask_token', 'unblocked', 'k4', 'none']
    runs = script.plan_runs('digits', ['mixmim'], arms, [3], costs, epochs=16)
    assert {run.name: run.epochs for run in runs} == {
        'digits-mixmim-mixmim-steps-seed3': 16,
        'digits-mixmim-mask_token-steps-seed3': 16,
        'digits-mixmim-mask_token-compute-seed3': 20,
        # About as expensive as MixMIM: one run for both.
        'digits-mixmim-unblocked-steps-seed3': 16,
        'digits-mixmim-k4-steps-seed3': 16,
        'digits-mixmim-k4-compute-seed3': 8,
        'digits-mixmim-none-steps-seed3': 0,
    }


def test_shapes_are_for_the_main_methods(script, ablations):
    costs = dict(swin=dict(mixmim=1.0, mask_token=0.99))
    runs = script.plan_runs('shapes', ['swin'], ablations.ARMS, [0, 1], costs, epochs=5)
    assert [(run.arm, run.seed, run.epochs) for run in runs] == [
        *(('mixmim', 0, 5), ('mixmim', 1, 5)),
        *(('mask_token', 0, 5), ('mask_token', 1, 5)),
        *(('none', 0, 0), ('none', 1, 0)),
    ]


@pytest.mark.parametrize('encoder', CLASSES)
def test_every_method_trains_with_every_encoder(ablations, encoder):
    init_default_scope('mmmixmim')
    images = torch.randn(12, 3, 32, 32)  # mixed by two, three and four
    losses = set()
    for arm, (_, options) in ablations.ARMS.items():
        if options is None:
            continue
        torch.manual_seed(0)
        run = ablations.Run('digits', encoder, arm, 'steps', 7, 16)
        cfg = ablations.digits_config(run, pretrain=True)
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[0]['end'] == 16
        assert cfg.randomness.seed == 7
        model = MODELS.build(cfg.model)
        assert type(model.backbone) is CLASSES[encoder]
        loss = model.loss(images)['loss']
        loss.backward()
        losses.add(loss.item())
    assert len(losses) == 7  # no two are the same method


def test_table_has_mean_and_deviation_of_the_runs(ablations, report):
    def row(seed, probe):
        scores = dict.fromkeys(report.SCORES, 50.0) | {'probe-10': probe}
        run = ablations.Run('digits', 'swin', 'k3', 'compute', seed, 14)
        return asdict(run) | dict(scores=scores)

    table = report.tabulate([row(0, 20.0), row(1, 30.0)], 'digits')
    assert table.startswith('**Swin**')
    (line,) = [each for each in table.splitlines() if 'three images' in each]
    cells = [cell.strip() for cell in line.strip('|').split('|')]
    deviation = statistics.stdev([20, 30])
    assert cells == [
        *('three images', 'equal compute', '14', '2', f'25.0 ± {deviation:.1f}'),
        *['50.0 ± 0.0'] * 3,
    ]


def test_measuring_costs_again_discards_runs_at_equal_compute(
    script, ablations, tmp_path
):
    runs = [
        ablations.Run('digits', 'swin', 'k3', budget, 0, 9)
        for budget in ablations.BUDGETS
    ]
    for run in runs:
        write_json(tmp_path / 'runs' / f'{run.name}.json', asdict(run))
    costs = dict(swin=dict(k3=1.1))
    write_json(tmp_path / 'costs-digits.json', dict(costs=costs))
    args = argparse.Namespace(work_dir=tmp_path, quick=True)
    assert script.read_costs('digits', args) == costs
    assert [script.is_done(run, tmp_path) for run in runs] == [True, True]
    script.discard_costs('digits', args)
    assert [script.is_done(run, tmp_path) for run in runs] == [True, False]
    assert script.read_costs('digits', args)['swin']['mixmim'] == 1


@pytest.mark.parametrize(
    'steps, tasks',
    [
        (['costs'], ['digits', 'shapes']),
        (['costs', 'dense'], ['shapes']),
        (['digits', 'dense'], ['digits', 'shapes']),
    ],
)
def test_steps_choose_the_tasks(script, steps, tasks):
    assert script.chosen_tasks(argparse.Namespace(steps=steps)) == tasks


def test_what_is_named_twice_is_done_once(script, ablations, tmp_path):
    costs = dict(mixmim=dict(mixmim=1.0))
    write_json(tmp_path / 'costs-digits.json', dict(costs=costs))
    names = dict(encoders=['mixmim'] * 2, arms=['mixmim'] * 2, seeds=[0, 0, 1])
    args = argparse.Namespace(
        steps=['digits'] * 2, quick=True, work_dir=tmp_path, **names
    )
    assert [run.seed for run in script.make_plan(args)] == [0, 1]


def test_a_run_of_another_length_is_done_again(script, ablations, tmp_path):
    run = ablations.Run('digits', 'swin', 'k3', 'compute', 0, 14)
    assert not script.is_done(run, tmp_path)
    write_json(tmp_path / 'runs' / f'{run.name}.json', asdict(run))
    assert script.is_done(run, tmp_path)
    longer = ablations.Run('digits', 'swin', 'k3', 'compute', 0, 15)
    assert not script.is_done(longer, tmp_path)


def test_quick_and_full_runs_do_not_share_a_folder(script, tmp_path):
    for first in (True, False):
        args = argparse.Namespace(work_dir=tmp_path / str(first), quick=first)
        script.check_quick(args)
        script.check_quick(args)
        args.quick = not first
        kinds = 'quick runs, which full' if first else 'full runs, which quick'
        with pytest.raises(UserError, match=f'{kinds} .*another --work-dir'):
            script.check_quick(args)


def test_unknown_run(tmp_path):
    (tmp_path / 'work').mkdir()
    costs = dict(costs=dict(swin=dict(mixmim=1.0)))
    (tmp_path / 'work' / 'costs-digits.json').write_text(json.dumps(costs))
    options = ['--work-dir', 'work', '--encoders', 'swin', '--arms', 'mixmim']
    result = call('compare_methods.py', *options, '--run', 'nothing', cwd=tmp_path)
    assert 'lead to no run nothing' in error_line(result)


@pytest.mark.slow
def test_compare_and_resume(tmp_path, report):
    """Two arms for one epoch, then again with one of the two results lost."""
    options = ['--quick', '--arms', 'mixmim', 'none', '--encoders', 'mixmim']
    options += ['--seeds', '0', '--work-dir', 'work']
    work = tmp_path / 'work'

    def results():
        return json.loads((work / 'results.json').read_text())

    output = passed(call('compare_methods.py', *options, cwd=tmp_path))
    assert '0 of 2 runs are done' in output
    rows = results()
    assert [row['arm'] for row in rows] == ['mixmim', 'none']
    assert (work / 'digits.md').read_text() in output
    assert Image.open(work / 'digits.png').width > 500
    for row in rows:
        assert all(0 <= row['scores'][name] <= 100 for name in report.SCORES)
        assert f'| {row["scores"]["probe-all"]:.1f} |' in output
    costs = json.loads((work / 'costs-digits.json').read_text())['costs']
    assert costs['mixmim']['mixmim'] == 1 and costs['swin']['k4'] > 0

    kept, lost = sorted((work / 'runs').iterdir())
    before = kept.stat().st_mtime_ns
    lost.unlink()
    output = passed(call('compare_methods.py', *options, cwd=tmp_path))
    assert '1 of 2 runs are done' in output
    assert kept.stat().st_mtime_ns == before
    assert results() == rows  # seeded

    # A user repeats one part.
    config = work / 'files' / kept.stem / 'pretrain.py'
    passed(call('train.py', config, '--work-dir', 'again', cwd=tmp_path))
    assert (tmp_path / 'again' / 'epoch_1.pth').exists()


@pytest.mark.slow
def test_compare_on_shapes(tmp_path, report):
    options = ['--quick', '--steps', 'dense', '--arms', 'mask_token', 'none']
    options += ['--encoders', 'swin', '--seeds', '0', '--work-dir', 'work']
    passed(call('compare_methods.py', *options, cwd=tmp_path))
    rows = json.loads((tmp_path / 'work' / 'results.json').read_text())
    assert [row['arm'] for row in rows] == ['mask_token', 'none']
    for row in rows:
        assert all(0 <= row['scores'][name] <= 100 for name in report.DENSE_SCORES)
    # Training starts from the pretrained encoder.
    folder = tmp_path / 'work' / 'files' / 'shapes-swin-mask_token-steps-seed0'
    for kind in ('detect', 'segment'):
        text = (folder / f'{kind}.py').read_text()
        assert str(folder.relative_to(tmp_path) / 'pretrain' / 'epoch_1.pth') in text
