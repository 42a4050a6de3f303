"""Pretraining a tiny model on a folder of satellite images of 13 bands.

As Sentinel-2's of 16 bits, where 0 is no data: such pixels do not count. Crops come
from windows of twice their size, so scenes of any size keep their scale. Images have
no up and down, so they are flipped both ways. Measure them first, see
configs/_base_/datasets/raster_pretrain.py, with --no-data 0.
"""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-300e_folder-grey16.py'

num_channels = 13

model = dict(backbone=dict(in_channels=num_channels))
train_pipeline = [
    dict(
        type='LoadRasterCrop',
        scale=_base_.img_size,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
        flip_prob=0.5,
        vertical_flip_prob=0.5,
        ignore_empty=True,
        num_channels=num_channels,
        no_data=0,
        max_crop=2 * _base_.img_size,
    ),
    dict(type='PackInputs', algorithm_keys=('pixel_weight',)),
]
held_out_crop = _base_.held_out_crop | dict(
    num_channels=num_channels, no_data=0, max_crop=2 * _base_.img_size
)
held_out_pipeline = [held_out_crop, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))
