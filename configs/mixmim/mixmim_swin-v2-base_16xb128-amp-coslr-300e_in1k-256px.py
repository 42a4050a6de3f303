"""Swin V2 base at 256 pixels. All else is as for Swin base."""

_base_ = [
    'mixmim_mixmim-base_16xb128-amp-coslr-300e_in1k.py',
    '../_base_/backbones/swin_v2_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMSwinTransformerV2',
        drop_path_rate=0.0,
        **_base_.stock_encoder,
    )
)

img_size = _base_.stock_encoder.img_size
train_pipeline = [
    dict(
        type='LoadRandomResizedCrop',
        scale=img_size,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
        flip_prob=0.5,
        ignore_empty=True,
    ),
    dict(type='PackInputs'),
]
held_out_pipeline = [
    dict(
        type='LoadRandomResizedCrop',
        scale=img_size,
        max_attempts=0,
        aspect_ratio_range=(1.0, 1.0),
        interpolation='bicubic',
        ignore_empty=True,
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))
