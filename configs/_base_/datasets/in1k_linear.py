"""ImageNet-1K for linear probing: only crops and flips, as in MAE."""

_base_ = 'in1k_finetune.py'

flip = dict(type='RandomFlip', prob=0.5)
train_pipeline = [_base_.load, _base_.train_crop, flip, _base_.pack]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))
