"""tools/what_predicts.py: configs, correlations, and a short real run."""

import json
import sys

import pytest

from ..scripts import call, error_line, load, passed


@pytest.fixture
def script():
    return load('what_predicts.py')


def rows(values, accuracies, measure='loss', run='good'):
    return [
        {measure: value, 'finetune': accuracy, 'run': run, 'epoch': 1}
        for value, accuracy in zip(values, accuracies, strict=True)
    ]


@pytest.mark.parametrize(
    'values, expected',
    [
        ([1, 2, 3, 4], (1, 1)),
        ([-1, -2, -3, -4], (-1, -1)),
        ([1, 10, 100, 1000], (0.8, 1)),
        ([1, 2, float('nan'), 4], (1, 1)),
        ([5, 5, 5, 5], None),
        ([1, float('nan'), float('inf'), 4], None),
    ],
)
def test_correlation(script, values, expected):
    found = script.correlation(rows(values, [10, 20, 30, 40]), 'loss')
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=0.05)


def test_every_run_differs_from_the_first_in_what_its_title_says(script):
    configs = {
        name: script.pretraining_config(name, 4, 2, seed=0) for name in script.RUNS
    }
    rates = {name: cfg.optim_wrapper.optimizer.lr for name, cfg in configs.items()}
    assert rates['good'] == pytest.approx(10 * rates['slow'])
    assert rates['fast'] == pytest.approx(30 * rates['good'])
    assert configs['hard'].model.mask_ratio == 0.9
    assert configs['few'].train_dataloader.dataset.type == 'RepeatDataset'
    assert configs['broken'].model.data_preprocessor.std == [1e6] * 3
    for cfg in configs.values():
        assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 2
        assert cfg.val_dataloader.dataset.split == 'test'


def test_results_of_other_lengths_are_not_taken(tmp_path, script, monkeypatch):
    done = []
    monkeypatch.setattr(script, 'run_one', lambda *args: done.append(args) or [])
    monkeypatch.setattr(script, 'report', lambda rows: '')
    command = ['what_predicts.py', '--work-dir', str(tmp_path), '--runs', 'slow']
    for options in ([], ['--finetune-epochs', '2'], ['--points', '4'], ['--points=4']):
        monkeypatch.setattr(sys, 'argv', [*command, *options])
        script.main()
    assert len(done) == 3


def test_what_is_named_twice_is_listed_once(tmp_path, script, monkeypatch, capsys):
    monkeypatch.setattr(script, 'run_one', lambda name, args, seed: [[name, seed]])
    monkeypatch.setattr(script, 'report', str)
    options = ['--seeds', '1', '1', '0', '--runs', 'slow', 'slow']
    command = ['what_predicts.py', '--work-dir', str(tmp_path), *options]
    monkeypatch.setattr(sys, 'argv', command)
    script.main()
    assert capsys.readouterr().out == "[['slow', 1], ['slow', 0]]\n"


def test_more_checkpoints_than_epochs_are_refused(tmp_path):
    command = ['what_predicts.py', '--epochs', 2, '--points', 3]
    line = error_line(call(*command, cwd=tmp_path))
    assert '--points must be' in line and 'got 3' in line


@pytest.mark.slow
def test_a_short_run_reports_measures_and_accuracies(tmp_path):
    options = ['--epochs', 2, '--finetune-epochs', 1, '--runs', 'slow']
    command = ['what_predicts.py', '--work-dir', 'out', *options]
    text = passed(call(*command, cwd=tmp_path))
    (path,) = (tmp_path / 'out').glob('*.json')
    assert path.name == 'slow-seed0-2-2-1.json'
    found = json.loads(path.read_text())
    assert [row['epoch'] for row in found] == [1, 2]
    assert all(0 < row['finetune'] <= 100 for row in found)
    assert '| learning rate / 10 | 2 |' in text and '| linear probe |' in text
    # Nothing is trained again.
    before = path.stat().st_mtime_ns
    passed(call(*command, cwd=tmp_path))
    assert path.stat().st_mtime_ns == before
