"""Pretraining on the shapes that tools/make_shapes.py draws, without labels."""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/backbones/mixmim_shapes.py',
    '../_base_/datasets/folder_pretrain.py',
    '../_base_/default_runtime.py',
]

img_size = _base_.encoder.img_size

model = dict(
    backbone=dict(_delete_=True, type='MixMIMTransformer', **_base_.encoder),
    neck=dict(decoder_embed_dims=128, decoder_depth=2, decoder_num_heads=4),
)

train_crop = _base_.train_crop | dict(scale=img_size, crop_ratio_range=(0.4, 1.0))
train_pipeline = [train_crop, _base_.pack]
# On two cores a loader process costs more time than it saves.
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    dataset=dict(
        data_root='data/shapes/images/unlabelled', held_out=0, pipeline=train_pipeline
    ),
)
# All images are trained on.
val_dataloader = None
val_cfg = None
val_evaluator = None
custom_hooks = [dict(type='DiagnosisHook'), dict(type='ReportHook')]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='WarmupCosineLR', warmup=2, end=16, convert_to_iter_based=True)
]
train_cfg = dict(type='ResumableEpochLoop', max_epochs=16)

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=16),
)
randomness = dict(seed=0)
