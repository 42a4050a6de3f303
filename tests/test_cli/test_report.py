"""Reports of runs by one command."""

from .conftest import error_line, mixmim


def test_the_report_of_a_run_and_of_two(pretrained, tmp_path):
    run, _ = pretrained
    page = tmp_path / 'new' / 'one.html'
    code, printed, err = mixmim('report', run, '--out', page)
    assert code == 0, err
    assert printed.splitlines()[-1] == str(page)
    text = page.read_text()
    assert '2 of 2 epochs' in text and 'epoch_2.pth' in text
    code, _, err = mixmim('report', run, run, '--out', tmp_path / 'two.html')
    assert code == 0, err
    assert '2 runs side by side' in (tmp_path / 'two.html').read_text()


def test_what_is_no_run_is_one_line(tmp_path):
    assert 'missing is no folder' in error_line('report', tmp_path / 'missing')
    assert 'holds no run' in error_line('report', tmp_path)
