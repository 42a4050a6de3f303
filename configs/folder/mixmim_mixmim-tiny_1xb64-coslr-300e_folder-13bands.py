"""Pretraining a tiny model on a folder of satellite images of 13 bands.

For 16-bit images such as Sentinel-2's, where 0 is no data: such pixels do not count.
Crops come from windows of twice their size, so scenes of any size keep their scale.
Images have no up and down, so they are flipped both ways. Measure them first, see
configs/_base_/datasets/raster_pretrain.py, with --no-data 0.
"""

_base_ = 'mixmim_mixmim-tiny_1xb64-coslr-300e_folder-grey16.py'

num_channels = 13

model = dict(backbone=dict(in_channels=num_channels))
bands = dict(num_channels=num_channels, no_data=0, max_crop=2 * _base_.img_size)
train_crop = _base_.train_crop | bands | dict(vertical_flip_prob=0.5)
train_pipeline = [train_crop, _base_.pack]
held_out_crop = _base_.held_out_crop | bands
held_out_pipeline = [held_out_crop, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))
