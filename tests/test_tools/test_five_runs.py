"""tools/benchmarks/five_runs.py, shorter."""

import pytest

from ..scripts import call, passed

# What log and report say of each run at its end.
VERDICTS = {
    'good': None,
    'high-learning-rate': 'Features collapsed',
    'broken-target': 'Loss near zero',
    'mask-ratio-0.9': 'Most of each image is hidden',
}


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
