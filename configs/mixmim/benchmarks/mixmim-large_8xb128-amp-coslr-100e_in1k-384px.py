"""Fine-tuning the large model at 384 pixels, tested on the whole image.

The windows are the authors'. They published no other setting of this resolution:
the rest is as at 224 pixels. Weights of 224 pixels are resized on loading.
"""

_base_ = 'mixmim-large_8xb128-amp-coslr-100e_in1k.py'

model = dict(backbone=dict(img_size=384, window_size=[16, 16, 24, 12]))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 384
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 384
test_pipeline[2].crop_size = 384

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
