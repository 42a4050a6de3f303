"""Fixtures for tests of the scripts."""

import pytest

from ..scripts import ONE_EPOCH, PRETRAIN, passed, run


@pytest.fixture(scope='session')
def pretraining(tmp_path_factory):
    """Work folder and output of one epoch of pretraining on the digits."""
    folder = tmp_path_factory.mktemp('pretrained')
    options = ['--work-dir', folder, '--cfg-options', *ONE_EPOCH]
    return folder, passed(run('train.py', PRETRAIN, *options, cwd=folder))


@pytest.fixture
def pretrained(pretraining):
    """Checkpoint of one epoch of pretraining on the digits."""
    return pretraining[0] / 'epoch_1.pth'


@pytest.fixture
def imported_types(tmp_path):
    """Config of the digits that imports its types, so it has no default_scope."""
    path = tmp_path / 'imported_types.py'
    path.write_text(
        """
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.model import PretrainedInit
from mmpretrain.datasets import PackInputs, Resize
from mmpretrain.models import SelfSupDataPreprocessor

from mmmixmim.datasets import Digits
from mmmixmim.models import (
    MixMIM, MixMIMPretrainDecoder, MixMIMPretrainHead, MixMIMTransformer
)

model = dict(
    type=MixMIM,
    backbone=dict(
        type=MixMIMTransformer,
        arch=dict(embed_dims=32, depths=[1, 1, 4], num_heads=[2, 4, 8]),
        img_size=32,
        patch_size=2,
        in_channels=1,
        window_size=8,
        init_cfg=dict(type=PretrainedInit, checkpoint='nowhere.pth'),
    ),
    neck=dict(
        type=MixMIMPretrainDecoder,
        decoder_embed_dims=64,
        decoder_depth=2,
        decoder_num_heads=4,
    ),
    head=dict(type=MixMIMPretrainHead),
    data_preprocessor=dict(type=SelfSupDataPreprocessor, mean=[77.8], std=[95.9]),
)
train_dataloader = dict(
    batch_size=256,
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=default_collate),
    dataset=dict(
        type=Digits,
        split='train',
        indices=100,
        pipeline=[dict(type=Resize, scale=(32, 32)), dict(type=PackInputs)],
    ),
)
val_dataloader = dict(train_dataloader, dataset=dict(train_dataloader['dataset']))
val_dataloader['dataset'].update(split='test')
"""
    )
    return path
