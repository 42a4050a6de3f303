"""Pretraining a tiny model on a folder of grey images of 16 bits.

For X-rays, microscopy or infrared. Measure the images first, see
configs/_base_/datasets/raster_pretrain.py.
"""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/datasets/raster_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/backbones/mixmim_tiny.py',
    '../_base_/default_runtime.py',
]

num_channels = 1

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, **_base_.tiny_arch), in_channels=num_channels
    ),
    neck=dict(decoder_embed_dims=256, decoder_depth=4, decoder_num_heads=8),
    data_preprocessor=dict(
        _delete_=True,
        type='RasterDataPreprocessor',
        statistics='data/statistics.json',
    ),
)
train_crop = _base_.train_crop | dict(num_channels=num_channels)
train_pipeline = [train_crop, _base_.pack]
held_out_crop = _base_.held_out_crop | dict(num_channels=num_channels)
held_out_pipeline = [held_out_crop, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))
