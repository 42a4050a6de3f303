"""Fine-tuning the base model at 384 pixels, tested without a crop margin.

The windows are the authors'. They published no other setting for this resolution;
everything else is as at 224 pixels. Weights trained at 224 pixels are resized on
loading.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

img_size = 384

model = dict(backbone=dict(img_size=img_size, window_size=[16, 16, 24, 12]))

train_pipeline = [
    dict(type='LoadImageOrSkip'),
    dict(
        type='RandomResizedCrop',
        scale=img_size,
        backend='pillow',
        interpolation='bicubic',
    ),
    *_base_.augmentation,
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=img_size,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=img_size),
    dict(type='PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
