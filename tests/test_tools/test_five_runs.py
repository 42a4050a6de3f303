"""tools/benchmarks/five_runs.py, shorter."""

import pytest

from ..scripts import call, error_line, load, passed

# What log and report say of each run at its end.
VERDICTS = {
    'good': None,
    'high-learning-rate': 'Features collapsed',
    'broken-target': 'Loss near zero',
    'mask-ratio-0.9': 'Most of each image is hidden',
}


def test_only_the_log_of_the_last_start_is_read(tmp_path):
    for time, verdict in (
        ('20260101', 'Nothing learned. It'),
        ('20260102', 'Loss x. '),
    ):
        log = tmp_path / time / f'{time}.log'
        log.parent.mkdir()
        log.write_text(f'Iter(train) [ 30/60] loss\n- mmengine - ERROR - {verdict}\n')
    found = load('benchmarks/five_runs.py').verdicts(tmp_path)
    assert found == ['Loss x, said after iteration 30']


def test_runs_too_short_for_their_validations_are_refused(tmp_path):
    line = error_line(call('benchmarks/five_runs.py', '--iters', 11, cwd=tmp_path))
    assert '--iters must be' in line and 'got 11' in line


@pytest.mark.slow
def test_reports_and_logs_tell_a_good_run_from_bad_ones(tmp_path):
    # The run on few images has to be long.
    options = ['--iters', 60, '--work-dir', tmp_path, '--only', *VERDICTS]
    lines = passed(call('benchmarks/five_runs.py', *options, cwd=tmp_path)).splitlines()
    for name, verdict in VERDICTS.items():
        report = (tmp_path / name / 'report.html').read_text()
        assert f'<strong>{verdict or "Healthy"}</strong>' in report, name
        said = [line for line in lines if line.startswith(f'{name}: ')]
        if verdict is None:
            assert said == [f'{name}: nothing wrong']
            continue
        assert int(said[0].split()[-1]) < 60, said
        assert any(verdict in line for line in said), said
        others = {*VERDICTS.values()} - {verdict, 'Features collapsed', None}
        assert not any(other in report for other in others), name
    assert '4 runs side by side' in (tmp_path / 'report.html').read_text()
