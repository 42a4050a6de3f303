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
train_pipeline = [_base_.train_crop | dict(scale=img_size), _base_.pack]
held_out_pipeline = [_base_.held_out_crop | dict(scale=img_size), _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))
