"""Fine-tuning the base model at 384 pixels, tested without a crop margin.

The windows are the authors'. They published no other setting for this resolution;
everything else is as at 224 pixels. Weights trained at 224 pixels are resized on
loading.
"""

_base_ = 'mixmim-base_8xb128-amp-coslr-100e_in1k.py'

img_size = 384

model = dict(backbone=dict(img_size=img_size, window_size=[16, 16, 24, 12]))

train_crop = _base_.train_crop | dict(scale=img_size)
train_pipeline = [_base_.load, train_crop, *_base_.augmentation, _base_.pack]
test_resize = _base_.test_resize | dict(scale=img_size)
test_crop = _base_.test_crop | dict(crop_size=img_size)
test_pipeline = [_base_.test_load, test_resize, test_crop, _base_.pack]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
