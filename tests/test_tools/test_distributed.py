"""Two real processes on a CPU, started as users start them."""

import importlib.util
import json
import multiprocessing
import os
import shutil
import stat
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mmmixmim.registry import MODELS

from ..conftest import ROOT
from ..scripts import FOLDER, call, error_line, free_port, passed, run

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason='about machines without'
)

CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports='tests.recording')
model = dict(
    type='RecordingMixMIM',
    folder='.',
    fixed=True,
    backbone=dict(
        arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8]),
        img_size=64,
    ),
    neck=dict(decoder_embed_dims=32, decoder_depth=1, decoder_num_heads=4),
)
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(shuffle=False),
    dataset=dict(data_root={images!r}, pipeline=pipeline),
)
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0, _delete_=True))
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=1, end=2, convert_to_iter_based=True)
]
default_hooks = dict(checkpoint=dict(interval=1))
custom_hooks = [dict(type='RecordWeights', folder='.')]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """16 pictures, and a config that trains on them in order, with fixed masks."""
    folder = tmp_path_factory.mktemp('distributed')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    for i in range(16):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / 'images' / f'{i:02}.png')
    text = CONFIG.format(base=str(FOLDER), images=str(folder / 'images'))
    (folder / 'config.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def two_processes(folder):
    """Folder of a run in two processes, each with half of every batch."""
    return train(folder, 'two', launcher(2))


def launcher(processes):
    return lambda *args, **kwargs: run(
        'dist_train.sh', args[0], processes, *args[1:], PORT=free_port(), **kwargs
    )


def train(folder, name, start, *options, config='config.py', **environment):
    """Train in a folder of its own, which is returned."""
    (folder / name).mkdir(exist_ok=True)
    work = ['--work-dir', 'run', *options]
    passed(start(folder / config, *work, cwd=folder / name, **path(), **environment))
    return folder / name


def path():
    return dict(PYTHONPATH=f'{ROOT}:{os.environ.get("PYTHONPATH", "")}')


def in_this_process(*args, cwd, **environment):
    return call('train.py', *args, cwd=cwd)


def weights(path):
    return torch.load(path, weights_only=True)  # our own files


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_processes_end_with_the_same_weights(two_processes):
    first, second = (weights(two_processes / f'weights{rank}.pt') for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_machines_that_share_no_folder_are_told(two_processes, folder, tmp_path):
    """One has the checkpoint, and the other has none."""
    shutil.copytree(two_processes / 'run', tmp_path / '0' / 'run')
    (tmp_path / '1').mkdir()
    port = free_port()

    def machine(rank):
        torch.set_num_threads(1)  # OpenMP does not survive a fork
        group = dict(RANK=str(rank), LOCAL_RANK='0', WORLD_SIZE='2')
        os.environ.update(group, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        options = ['--work-dir', 'run', '--launcher', 'pytorch', '--resume']
        cwd = tmp_path / str(rank)
        result = call('train.py', folder / 'config.py', *options, cwd=cwd)
        (cwd / 'line').write_text(error_line(result))

    fork = multiprocessing.get_context('fork')
    machines = [fork.Process(target=machine, args=(rank,)) for rank in range(2)]
    for each in machines:
        each.start()
    for each in machines:
        each.join(60)
        each.kill()  # where they wait for each other
    assert {(tmp_path / rank / 'line').read_text() for rank in '01'} == {
        'error: Rank 0 resumes epoch_2.pth, and rank 1 starts afresh: they see '
        'different checkpoints. Set work_dir to a folder that all machines share.'
    }


# Rank r of two gets every second picture from r on: these orders give one process the
# same pairs.
TOGETHER = [0, 2, 1, 3, 5, 7, 4, 6]
IN_TURN = [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize(
    'order, options',
    [
        (TOGETHER, ['train_dataloader.batch_size=8']),
        (IN_TURN, ['optim_wrapper.accumulative_counts=2']),
    ],
    ids=['batch of 8', 'twice 4'],
)
def test_one_process_trains_alike(order, options, two_processes, folder, tmp_path):
    """Gradients, learning rates and their schedule all show in the weights."""
    order = [*order, *(i + 8 for i in order)]
    indices = f'train_dataloader.dataset.indices={order}'.replace(' ', '')
    run_folder = train(
        folder, tmp_path.name, in_this_process, '--cfg-options', *options, indices
    )
    assert_equal(
        weights(run_folder / 'weights0.pt'), weights(two_processes / 'weights0.pt')
    )


def test_sharded_training_loses_as_much_and_continues(two_processes, folder):
    """FSDP with its gathered checkpoint: trained, resumed, read by a plain model."""
    (folder / 'fsdp.py').write_text(
        f"_base_ = ['config.py', '{ROOT}/configs/_base_/strategies/fsdp.py']\n"
        'strategy = dict(model_wrapper=dict(mixed_precision=None))\n'
        'optim_wrapper = dict(clip_grad=dict(max_norm=1e9))\n'
        "hooks = dict(type='OnlineProbeHook'), dict(type='ReconstructionHook')\n"
        'custom_hooks = list(hooks)\n'
        f"val = dict(data_root={str(folder / 'images')!r}, part='train')\n"
        'val_dataloader = dict(batch_size=2, num_workers=0, dataset=val)\n'
        'train_cfg = dict(val_interval=1)\n'
        'train_dataloader = dict(batch_size=4)\n'
    )
    losses = []
    for options in (['--cfg-options', 'train_cfg.max_epochs=1'], ['--resume']):
        # The schedule still ends after two epochs.
        done = train(folder, 'fsdp', launcher(2), *options, config='fsdp.py')
        losses.append([batch['loss'] for batch in torch.load(done / 'seen1.pt')])
    expected = [batch['loss'] for batch in torch.load(two_processes / 'seen1.pt')]
    torch.testing.assert_close(sum(losses, []), expected)

    checkpoint = weights(done / 'run' / 'epoch_2.pth')
    norms, expected = (
        each['message_hub']['log_scalars']['train/grad_norm']['log_history']
        for each in (checkpoint, weights(two_processes / 'run' / 'epoch_2.pth'))
    )
    torch.testing.assert_close(norms, expected)
    logs = [path.read_text() for path in sorted((done / 'run').glob('*/*.log'))]
    # The checkpoint is older than the validation, which is repeated.
    assert [text.count('reconstruction/loss: ') for text in logs] == [1, 2]
    assert 'Probe and k-NN are off' in logs[0]
    assert 'No pictures are drawn' in logs[0]
    assert_equal(checkpoint['state_dict'], weights(two_processes / 'weights0.pt'))
    config = (done / 'run' / 'config.py').read_text()
    assert 'device_id' not in config  # it trains on other devices, too
    model = load_model(folder)
    model.load_state_dict(checkpoint['state_dict'])
    name = 'backbone.layers.0.blocks.0.attn'
    assert checkpoint['state_dict']._metadata[name]['window'] == (14, 14)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('deepspeed') is None, reason='needs DeepSpeed'
)
@pytest.mark.parametrize('stage', [2, 3])
def test_zero_loses_as_much(stage, folder):
    base = f'{ROOT}/configs/_base_/strategies/deepspeed_zero{stage}.py'
    (folder / 'zero.py').write_text(
        f"_base_ = ['config.py', {base!r}]\n"
        'strategy = dict(\n'
        '    bf16=dict(enabled=False), zero_optimization=dict(overlap_comm=False)\n'
        ')\n'
        "optim_wrapper = dict(type='DeepSpeedOptimWrapper')\n"
        'custom_hooks = []\n'
    )
    optimizer = dict(type='AdamW', lr=0.01, weight_decay=0.05)
    options = [f'optim_wrapper.optimizer.{key}={optimizer[key]}' for key in optimizer]
    options = ['--cfg-options', *options]
    name = f'zero{stage}'
    environment = dict(config='zero.py', DS_ACCELERATOR='cpu')
    done = train(folder, name, launcher(2), *options, **environment)
    plain = train(folder, f'{name}-ddp', launcher(2), *options)
    found, expected = (
        [batch['loss'] for batch in torch.load(each / 'seen1.pt')]
        for each in (done, plain)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def load_model(folder):
    from mmengine.config import Config

    from .. import recording  # noqa: F401

    return MODELS.build(Config.fromfile(folder / 'config.py').model)


SRUN = """#!{python}
import json, os, subprocess, sys
options = sys.argv[1 : sys.argv.index('--kill-on-bad-exit=1') + 1]
command = sys.argv[len(options) + 1 :]
tasks = int(options[options.index('--ntasks') + 1])
with open({record!r}, 'w') as file:
    json.dump(dict(options=options, command=command), file)
job = dict(SLURM_NTASKS=str(tasks), SLURM_JOB_NODELIST='here[1-2]')
job['SLURM_JOB_ID'] = {job!r}
ranks = [
    subprocess.Popen(
        command,
        env=os.environ | job | dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)),
    )
    for rank in range(tasks)
]
sys.exit(max(rank.wait() for rank in ranks))
"""
SCONTROL = """#!/usr/bin/env bash
[[ $* == 'show hostnames here[1-2]' ]] && printf '127.0.0.1\\n127.0.0.2\\n'
"""


def test_slurm_starts_processes_that_draw_their_own(folder, tmp_path):
    """By stand-ins of srun and scontrol; the masks and crops are the recipe's own."""
    record = tmp_path / 'record.json'
    job = free_port()
    programs = dict(
        srun=SRUN.format(python=sys.executable, record=str(record), job=job),
        scontrol=SCONTROL,
    )
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    options = [
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'model.fixed=False',
        'model.backbone.img_size=128',
        'train_dataloader.dataset.pipeline.0.type=LoadRandomResizedCrop',
        'train_dataloader.dataset.pipeline.0.scale=128',
        # Every sample is the same picture.
        'train_dataloader.dataset.indices=[0,0,0,0,0,0,0,0]',
    ]
    done = train(
        folder,
        'slurm',
        lambda *args, **kwargs: run('slurm_train.sh', 'cpus', 'a job', *args, **kwargs),
        *options,
        GPUS='2',
        GPUS_PER_NODE='2',
        CPUS_PER_TASK='1',
        GRES='',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
    )
    started = json.loads(record.read_text())
    assert started['options'] == [
        *('--partition', 'cpus', '--job-name', 'a job'),
        *('--ntasks', '2', '--ntasks-per-node', '2', '--cpus-per-task', '1'),
        '--kill-on-bad-exit=1',
    ]
    assert started['command'][-len(options) - 4 : -len(options)] == [
        *('--launcher', 'slurm', '--work-dir', 'run')
    ]
    (first,), (second,) = (torch.load(done / f'seen{rank}.pt') for rank in (0, 1))
    assert not torch.equal(first['mask'], second['mask'])
    images = torch.cat([first['images'], second['images']])
    assert len(images) == 8 == len(images.flatten(1).unique(dim=0))
    ended = [weights(done / f'weights{rank}.pt') for rank in (0, 1)]
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
