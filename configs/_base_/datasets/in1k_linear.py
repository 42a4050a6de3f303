"""ImageNet-1K for linear probing: only crops and flips, as in MAE."""

_base_ = 'in1k_finetune.py'

train_pipeline = [
    dict(type='LoadImageOrSkip'),
    dict(
        type='RandomResizedCrop',
        scale=_base_.img_size,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))
