"""tools/report.py on a real run."""

from ..scripts import call, error_line, passed


def test_the_report_of_a_run_and_of_two(pretraining, tmp_path):
    run = pretraining[0]
    result = call('report.py', run, '--out', 'new/one.html', cwd=tmp_path)
    assert passed(result).splitlines()[-1] == 'new/one.html'
    text = (tmp_path / 'new' / 'one.html').read_text()
    assert '1 of 1 epochs' in text and 'epoch_1.pth' in text
    passed(call('report.py', run, run, '--out', 'two.html', cwd=tmp_path))
    assert '2 runs side by side' in (tmp_path / 'two.html').read_text()


def test_what_is_no_run_is_one_line(tmp_path):
    line = error_line(call('report.py', 'missing', cwd=tmp_path))
    assert line.startswith('error: missing is no folder')
    line = error_line(call('report.py', tmp_path, cwd=tmp_path))
    assert 'holds no run' in line
