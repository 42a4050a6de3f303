"""Steps and table of tools/demo.py. ``make demo`` itself takes minutes."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from ..scripts import TOOLS, call, load


@pytest.fixture(scope='module')
def script():
    return load('demo.py')


def test_scripts_accept_the_arguments_of_their_steps(script, monkeypatch):
    """Paths match the output of earlier steps."""
    steps = {step.name: step for step in script.plan(Path('w'), 7)}
    assert list(steps) == [
        *('pretrain', 'picture', 'probe-untrained', 'probe-pretrained'),
        *('from-scratch', 'fine-tuned'),
    ]
    args = {}
    for name, step in steps.items():
        path, *arguments = map(str, step.command)
        monkeypatch.setattr('sys.argv', [path, *arguments])
        args[name] = load(path).parse_args()
        cfg = Config.fromfile(args[name].config)
        if step.epochs:
            assert step.epochs == cfg.train_cfg.max_epochs
            assert args[name].work_dir == f'w/{name}'
            assert args[name].cfg_options['randomness.seed'] == 7
    epochs = Config.fromfile(script.PRETRAIN).train_cfg.max_epochs
    checkpoint = f'w/pretrain/epoch_{epochs}.pth'
    assert args['picture'].checkpoint == checkpoint
    assert str(args['picture'].out) == 'w/reconstruction.png'
    assert args['probe-untrained'].checkpoint is None
    assert args['probe-pretrained'].checkpoint == checkpoint
    for name in ('probe-untrained', 'probe-pretrained'):
        assert args[name].seed == 7 and args[name].samples_per_class == [10, 50, 'all']
        assert str(args[name].out) == f'w/{name}.json'
    start = {
        f'model.backbone.init_cfg.{key}': value
        for key, value in dict(
            type='Pretrained', checkpoint=checkpoint, prefix='backbone.'
        ).items()
    }
    seed = {'randomness.seed': 7}
    assert args['from-scratch'].cfg_options == seed
    assert args['fine-tuned'].cfg_options == seed | start
    assert args['fine-tuned'].config == args['from-scratch'].config


def test_table(script, tmp_path, monkeypatch):
    outputs = {
        'from-scratch': 'accuracy/top1: 12.3456\naccuracy/top1: 45.6789',
        'fine-tuned': 'accuracy/top1: 67.8912',
    }

    def run_steps(steps, logs):
        assert logs == Path('new/logs')
        Path('new').mkdir()
        for start, shift in (('untrained', 0), ('pretrained', 0.5)):
            figures = {'10': 1.23 + shift, '50': 4.56 + shift, 'all': 7.89 + shift}
            Path(f'new/probe-{start}.json').write_text(json.dumps(figures))
        return outputs, 61

    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr('steps.run_steps', run_steps)
    result = call('demo.py', '--seed', 3, '--work-dir', 'new', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line]
    figures = [row[-3:] for row in rows if 'encoder' in row]
    assert figures == [['1.2', '4.6', '7.9'], ['1.7', '5.1', '8.4']]
    ends = [row[-1] for row in rows if 'scratch' in row or 'fine-tuned' in row]
    assert ends == ['45.7', '67.9']
    assert rows[-1] == ['Took', '1', 'min', '01', 's.']
    assert (tmp_path / 'new' / 'summary.txt').read_text() == result.stdout


def test_results_go_to_a_folder_of_the_seed(tmp_path, monkeypatch):
    asked = []

    def run_steps(steps, logs):
        asked.append((steps[0].command[3], logs))
        raise SystemExit

    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setattr('steps.run_steps', run_steps)
    call('demo.py', '--seed', 3, cwd=tmp_path)
    folder = Path('work_dirs/demo-seed3')
    assert asked == [(folder / 'pretrain', folder / 'logs')]
