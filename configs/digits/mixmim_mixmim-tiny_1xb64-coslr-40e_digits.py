"""Pretraining on the digits."""

_base_ = [
    '../_base_/models/mixmim_tiny_digits.py',
    '../_base_/datasets/digits_pretrain.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='MixMIM',
    neck=dict(
        type='MixMIMPretrainDecoder',
        decoder_embed_dims=64,
        decoder_depth=2,
        decoder_num_heads=4,
    ),
    head=dict(type='MixMIMPretrainHead'),
    data_preprocessor=dict(type='SelfSupDataPreprocessor'),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, end=4, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=4, end=40, convert_to_iter_based=True),
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=40)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=40),
)
randomness = dict(seed=0)
