"""Runs that were killed end with the same bits as runs that were not."""

import numpy as np
import pytest
import torch

from mmmixmim.checkpoint.resumable import find_resumable

from .runs import KillHook, resumed, tiny_finetuning, tiny_pretraining, train

CONFIGS = dict(epoch=tiny_finetuning, iter=tiny_pretraining)
LAST = dict(epoch='epoch_3.pth', iter='iter_9.pth')


@pytest.fixture(scope='module')
def left_alone(tmp_path_factory):
    """Final checkpoints of runs that nobody killed, by loop and number of processes."""
    finals = {}

    def final(loop, processes):
        if (loop, processes) not in finals:
            folder = tmp_path_factory.mktemp('left_alone')
            assert train(CONFIGS[loop](folder), processes=processes) == 0
            finals[loop, processes] = folder / LAST[loop]
        return finals[loop, processes]

    return final


def differences(a, b, name=''):
    """Names of the entries in which two checkpoints differ in a bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = {*a, *b}
        return [
            found
            for key in keys
            for found in differences(a.get(key), b.get(key), f'{name}.{key}')
        ]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [name]
        return differences(dict(enumerate(a)), dict(enumerate(b)), name)
    if hasattr(a, 'data') and isinstance(a.data, tuple):  # MMEngine's HistoryBuffer
        a, b = (np.stack(each.data) for each in (a, b))
    if isinstance(a, (torch.Tensor, np.ndarray)):
        return [] if a.shape == b.shape and (a == b).all() else [name]
    return [] if type(a) is type(b) and a == b else [name]


def content(path):
    """What must be equal in a checkpoint: all but times and paths."""
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint['meta']['time'], checkpoint['meta']['experiment_name']
    del checkpoint['meta']['cfg']
    hub = checkpoint['message_hub']
    for entries in hub.values():
        for name in list(entries):
            if name.endswith(('time', 'eta', 'cfg', 'experiment_name', '_ckpt')):
                del entries[name]
    return checkpoint


@pytest.mark.parametrize(
    'loop, workers, processes, kills',
    [
        ('epoch', 0, 1, [('before_train_iter', 2), ('after_val_iter', 2)]),
        ('epoch', 2, 1, [('writing', 3)]),
        ('epoch', 0, 2, [('after_train_iter', 5)]),
        ('epoch', 2, 2, [('before_train_iter', 7)]),
        ('iter', 0, 1, [('writing', 2), ('before_save_checkpoint', 3)]),
        ('iter', 2, 1, [('after_train_iter', 8)]),
        ('iter', 0, 2, [('before_train_iter', 4)]),
        ('iter', 2, 2, [('after_train_iter', 7)]),
    ],
)
def test_killed_and_resumed_run_ends_with_the_same_bits(
    loop, workers, processes, kills, left_alone, tmp_path
):
    for i, kill in enumerate(kills):
        cfg = CONFIGS[loop](tmp_path, workers)
        if i:
            cfg.load_from, cfg.resume = find_resumable(tmp_path), True
        rank = processes - 1 if kill[0].endswith('train_iter') else 0
        hook = (KillHook, *kill)
        assert train(cfg, hook, processes=processes, killed_rank=rank) == -9
        assert not (tmp_path / LAST[loop]).exists()
    cfg = resumed(CONFIGS[loop](tmp_path, workers))
    cfg.load_from = find_resumable(tmp_path)
    assert train(cfg, processes=processes) == 0
    expected, got = map(content, (left_alone(loop, processes), tmp_path / LAST[loop]))
    assert not differences(expected, got)
    assert len(expected['message_hub']['log_scalars']['train/loss'].data[0]) == 9
