"""A folder of images of any channels and bits, without labels.

Measure mean and deviation of the channels first, and name folder and file:
python tools/measure_channels.py FOLDER --out statistics.json
--cfg-options train_dataloader.dataset.data_root=FOLDER
model.data_preprocessor.statistics=statistics.json
"""

_base_ = 'pretrain.py'

img_size = 224

train_pipeline = [
    dict(
        type='LoadRasterCrop',
        scale=img_size,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
        flip_prob=0.5,
        ignore_empty=True,  # UnreadableImagesHook counts and lists them
    ),
    dict(type='PackInputs', algorithm_keys=('pixel_weight',)),
]
train_dataloader = dict(
    dataset=dict(
        type='RasterFolder',
        data_root='data/images',
        held_out=0.05,
        pipeline=train_pipeline,
    )
)

# The largest square in the middle, without draws. What else the training's pipeline
# sets (no_data, num_channels, ...) must be set here too.
held_out_crop = dict(
    type='LoadRasterCrop',
    scale=img_size,
    max_attempts=0,
    aspect_ratio_range=(1.0, 1.0),
    interpolation='bicubic',
    ignore_empty=True,
)
pack = dict(type='PackInputs', algorithm_keys=('pixel_weight',))
held_out_pipeline = [held_out_crop, pack]
# The folder and the number of images are those of train_dataloader.
val_dataloader = dict(
    dataset=dict(type='RasterFolder', part='held_out', pipeline=held_out_pipeline)
)
