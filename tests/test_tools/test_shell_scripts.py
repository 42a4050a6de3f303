"""Launch scripts of distributed runs."""

import os
import pickle
import re

import pytest
import torch

from ..scripts import CLASSIFY, ONE_ITERATION, TOOLS, call, free_port, passed, run

FAKE = '#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n'


@pytest.mark.skipif(torch.cuda.is_available(), reason='about machines without')
@pytest.mark.slow
def test_two_processes_evaluate_each_sample_once(tmp_path):
    """37 samples: the process with one less repeats one, which must not count."""
    options = ['--work-dir', tmp_path, '--cfg-options', *ONE_ITERATION]
    passed(call('train.py', CLASSIFY, *options, cwd=tmp_path))
    checkpoint = tmp_path / 'epoch_1.pth'
    options = ['--cfg-options', 'test_dataloader.dataset.indices=37']
    options += ['test_dataloader.batch_size=8', 'test_dataloader.num_workers=0']

    one, two = tmp_path / 'one.pkl', tmp_path / 'two.pkl'
    arguments = [CLASSIFY, checkpoint, '--out', one, *options]
    alone = passed(call('test.py', *arguments, cwd=tmp_path))
    arguments = [CLASSIFY, checkpoint, 2, '--out', two, *options]
    shared = passed(run('dist_test.sh', *arguments, cwd=tmp_path, PORT=free_port()))

    expected, found = (pickle.loads(path.read_bytes()) for path in (one, two))
    assert len(found) == len(expected) == 37
    for sample, other in zip(found, expected, strict=True):
        assert sample['sample_idx'] == other['sample_idx']
        torch.testing.assert_close(sample['pred_score'], other['pred_score'])
    accuracy = re.compile(r'accuracy/top1: [\d.]+')
    assert accuracy.findall(shared) == accuracy.findall(alone) != []


@pytest.fixture
def fake(tmp_path):
    """Replacement for python and srun that prints its arguments, one per line."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(FAKE)
        (tmp_path / name).chmod(0o755)
    return dict(
        PYTHON=str(tmp_path / 'python'), PATH=f'{tmp_path}:{os.environ["PATH"]}'
    )


@pytest.mark.parametrize(
    'script, arguments, end',
    [
        ('dist_train.sh', ['c d.py', '4'], ['train.py', 'c d.py']),
        ('dist_test.sh', ['c.py', 'a b.pth', '4'], ['test.py', 'c.py', 'a b.pth']),
    ],
)
@pytest.mark.parametrize('several', [False, True])
def test_arguments_reach_torchrun(script, arguments, end, several, fake, tmp_path):
    machines = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='12345')
    environment = fake | (machines if several else {})
    options = ['--work-dir', 'e f']
    result = run(script, *arguments, *options, cwd=tmp_path, **environment)
    values = machines.values() if several else ('1', '0', '127.0.0.1', '29500')
    names = ('--nnodes', '--node-rank', '--master-addr', '--master-port')
    expected = ['-m', 'torch.distributed.run']
    for pair in zip(names, values, strict=True):
        expected += pair
    expected += ['--nproc-per-node', '4', f'{TOOLS}/{end[0]}', *end[1:]]
    expected += ['--launcher', 'pytorch', *options]
    assert passed(result).splitlines() == expected


@pytest.mark.parametrize('several', [False, True])
def test_arguments_reach_slurm(several, fake, tmp_path):
    asked = dict(GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3')
    gres = 'gpu:a100:4' if several else 'gpu:8'
    more = dict(SRUN_ARGS='--time 1 -x', GRES=gres)
    environment = fake | (asked | more if several else {})
    arguments = ['gpu', 'my job', 'c d.py', '--amp']
    result = run('slurm_train.sh', *arguments, cwd=tmp_path, **environment)
    gpus, per_node, cpus = asked.values() if several else ('8', '8', '5')
    assert passed(result).splitlines() == [
        *('--partition', 'gpu', '--job-name', 'my job', '--ntasks', gpus),
        *('--ntasks-per-node', per_node, '--gres', gres),
        *('--cpus-per-task', cpus, '--kill-on-bad-exit=1'),
        *(('--time', '1', '-x') if several else ()),
        *(fake['PYTHON'], '-u', f'{TOOLS}/train.py', 'c d.py'),
        *('--launcher', 'slurm', '--amp'),
    ]


@pytest.mark.parametrize(
    'script, number', [('dist_train.sh', 2), ('dist_test.sh', 3), ('slurm_train.sh', 3)]
)
def test_missing_arguments_print_the_usage(script, number, fake, tmp_path):
    result = run(script, *['a'] * (number - 1), cwd=tmp_path, **fake)
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.startswith(f'usage: tools/{script} ')
