"""A folder of images of any channels and bits, without labels.

Measure mean and standard deviation of the channels first; name folder and file:
python tools/measure_channels.py FOLDER --out statistics.json
--cfg-options train_dataloader.dataset.data_root=FOLDER
model.data_preprocessor.statistics=statistics.json
"""

_base_ = 'pretrain.py'

train_crop = _base_.train_crop | dict(type='LoadRasterCrop')
pack = _base_.pack | dict(algorithm_keys=('pixel_weight',))
train_pipeline = [train_crop, pack]
train_dataloader = dict(
    dataset=dict(
        type='RasterFolder',
        data_root='data/images',
        held_out=0.05,
        pipeline=train_pipeline,
    )
)

# What the training's crop sets (no_data, num_channels, ...) must be set here too.
held_out_crop = _base_.held_out_crop | dict(type='LoadRasterCrop')
held_out_pipeline = [held_out_crop, pack]
# The folder and the number of images are those of train_dataloader.
val_dataloader = dict(
    dataset=dict(type='RasterFolder', part='held_out', pipeline=held_out_pipeline)
)
