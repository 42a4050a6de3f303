import json
import os

import pytest

from mmmixmim.evaluation import read_history
from mmmixmim.evaluation.history import judged_history


def write(work_dir, time, records, resume=False, tail=''):
    folder = work_dir / time / 'vis_data'
    folder.mkdir(parents=True)
    lines = ''.join(json.dumps(record) + '\n' for record in records)
    (folder / 'scalars.json').write_text(lines + tail)
    (folder / 'config.py').write_text(f'resume = {resume}\n')


def train(*steps, loss=1.0):
    return [dict(loss=loss, lr=0.1, time=1, iter=i, epoch=1, step=i) for i in steps]


def test_a_run_without_scalars_has_no_history(tmp_path):
    assert read_history(tmp_path) == {}
    write(tmp_path, '20260101_000000', [])
    assert read_history(tmp_path) == {}


def test_validation_counted_in_epochs_gets_the_iteration_of_training(tmp_path):
    val = {'reconstruction/loss': 0.5, 'time': 9.0, 'step': 1}
    write(tmp_path, '20260101_000000', [*train(10, 20), val, *train(30)])
    history = read_history(tmp_path)
    assert history['reconstruction/loss'] == [(20, 0.5)]
    assert history['time'] == [(10, 1.0), (20, 1.0), (30, 1.0)]
    assert history['epoch'] == [(10, 1.0), (20, 1.0), (30, 1.0)]


def test_validation_counted_in_iterations_keeps_them(tmp_path):
    write(tmp_path, '20260101_000000', [*train(10, 20), {'probe/top1': 7, 'step': 25}])
    assert read_history(tmp_path)['probe/top1'] == [(25, 7.0)]


def test_a_resumed_start_replaces_what_it_computed_again(tmp_path):
    val = {'reconstruction/loss': 0.5, 'step': 1}
    write(tmp_path, '20260101_000000', [*train(10, 20), val, *train(30, 40), val])
    write(tmp_path, '20260102_000000', train(30, 40, 50, loss=2), resume=True)
    history = read_history(tmp_path)
    assert history['loss'] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0), (50, 2.0)]
    assert history['reconstruction/loss'] == [(20, 0.5)]


def test_starts_are_in_order_when_the_local_time_went_back(tmp_path):
    """Or the time zone changed; the first start here is named by a later time."""
    for name, started, steps in (
        ('20261025_025000', 1792889400, (10, 20)),
        ('20261025_021000', 1792890600, (30, 40)),
    ):
        write(tmp_path, name, train(*steps), resume=steps[0] > 10)
        counts = tmp_path / name / 'vis_data' / 'counts.json'
        counts.write_text(json.dumps(dict(started=started)))
    assert [at for at, _ in read_history(tmp_path)['loss']] == [10, 20, 30, 40]


def test_a_start_from_scratch_replaces_everything(tmp_path):
    write(tmp_path, '20260101_000000', train(10, 20, 30))
    write(tmp_path, '20260102_000000', train(20, loss=2))
    assert read_history(tmp_path)['loss'] == [(20, 2.0)]


def test_a_start_that_logged_nothing_replaces_nothing(tmp_path):
    write(tmp_path, '20260101_000000', train(10))
    write(tmp_path, '20260102_000000', [])
    assert read_history(tmp_path)['loss'] == [(10, 1.0)]


def test_a_line_cut_off_and_values_that_are_no_numbers_are_left_out(tmp_path):
    records = [*train(10), dict(loss=float('nan'), name='x', iter=20, step=20), [1]]
    write(tmp_path, '20260101_000000', records, tail='{"loss": 0.')
    history = read_history(tmp_path)
    assert [step for step, _ in history['loss']] == [10, 20]
    assert 'name' not in history


def test_pipes_are_not_read(tmp_path):
    write(tmp_path, '20260101_000000', train(10))
    os.mkfifo(tmp_path / '20260101_000000' / 'vis_data' / 'counts.json')
    write(tmp_path, '20260102_000000', [])
    scalars = tmp_path / '20260102_000000' / 'vis_data' / 'scalars.json'
    scalars.unlink()
    os.mkfifo(scalars)
    history = read_history(tmp_path)
    assert history['loss'] == [(10, 1.0)]
    os.mkfifo(scalars.with_name('curves.json'))
    assert judged_history(tmp_path / '20260102_000000', history) == history


def curves(work_dir, text):
    (work_dir / 'vis_data').mkdir(exist_ok=True)
    (work_dir / 'vis_data' / 'curves.json').write_text(text)
    history = dict(loss=[(10, 1.0), (25, 2.0), (30, 3.0)], lr=[(10, 0.1)])
    return judged_history(work_dir, history), history


@pytest.mark.parametrize(
    'text',
    [
        *('[1', '[]', '"a"', '[' * 100_000, '{"loss": [[10, 1]]}'),
        '{"iteration": 1, "curves": []}',
        '{"iteration": "a", "curves": {"loss": []}}',
        *(
            f'{{"iteration": 25, "curves": {{"loss": {loss}}}}}'
            for loss in ('1', '[1]', '[[]]', '[[1, 2, 3]]', 'null')
        ),
    ],
)
def test_curves_that_are_broken_are_not_judged(tmp_path, text):
    judged, history = curves(tmp_path, text)
    assert judged == history


def test_points_of_curves_that_are_none_are_left_out(tmp_path):
    points = '[20, 0.5], [10, 0.7], [-10, 1], [Infinity, 1], [1.5, 1], [15, "a"]'
    points += f', [12, 1{"0" * 400}]'
    judged, _ = curves(
        tmp_path, f'{{"iteration": 25, "curves": {{"loss": [{points}], "x": []}}}}'
    )
    # What was logged after the curves were saved goes on from there.
    loss = [(10, 0.7), (12, float('inf')), (20, 0.5), (30, 3.0)]
    assert judged == dict(loss=loss, lr=[(10, 0.1)])


def count(work_dir, time, per_epoch):
    path = work_dir / time / 'vis_data' / 'counts.json'
    path.write_text(json.dumps(dict(iters_per_epoch=per_epoch)))


def test_iterations_of_other_batches_are_those_of_the_same_epochs(tmp_path):
    """Two epochs of 40 batches, then resumed with 20."""
    write(tmp_path, '20260101_000000', train(20, 40, 60, 80))
    count(tmp_path, '20260101_000000', 40)
    assert [at for at, _ in read_history(tmp_path, 20)['loss']] == [10, 20, 30, 40]
    write(tmp_path, '20260102_000000', train(50, 60, loss=2), resume=True)
    count(tmp_path, '20260102_000000', 20)
    steps = [10, 20, 30, 40, 50, 60]
    assert [at for at, _ in read_history(tmp_path)['loss']] == steps
    # Without counts nothing is known of epochs.
    count(tmp_path, '20260101_000000', 0)
    assert [at for at, _ in read_history(tmp_path)['loss']] == [20, 40, 50, 60]
