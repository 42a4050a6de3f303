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
train_cfg = dict(type='ResumableEpochLoop', max_epochs=40, val_interval=10)

img_size = _base_.img_size
val_dataloader = dict(
    batch_size=128,  # pairs
    num_workers=0,
    persistent_workers=False,  # mmpretrain's train.py sets True
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        _scope_='mmmixmim',
        type='Digits',
        split='test',
        pipeline=[
            dict(type='Resize', scale=(img_size, img_size), interpolation='bicubic'),
            dict(type='PackInputs'),
        ],
    ),
)
val_cfg = dict(type='HeldOutLoop', max_images=128)
val_evaluator = [dict(type='ReconstructionLoss'), dict(type='FeatureHealth')]
custom_hooks = [
    dict(type='OnlineProbeHook', max_images=128),
    dict(type='ReconstructionHook'),
    dict(type='DiagnosisHook'),
    dict(type='ReportHook'),
]

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=40),
)
randomness = dict(seed=0)
