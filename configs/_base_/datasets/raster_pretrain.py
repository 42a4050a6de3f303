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
    ),
    dict(type='PackInputs', algorithm_keys=('pixel_weight',)),
]
train_dataloader = dict(
    dataset=dict(type='RasterFolder', data_root='data/images', pipeline=train_pipeline)
)
