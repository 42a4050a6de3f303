"""Fine-tuning mmpretrain's Swin V2 base at 256 pixels, pretrained with MixMIM.

Everything else is as for our base model. Drop path 0.1 is also what SimMIM's code sets
for Swin V2 base; its layer decay of 0.75 and 20 epochs of warm-up are not adopted.
"""

_base_ = [
    'mixmim-base_8xb128-amp-coslr-100e_in1k.py',
    '../../_base_/backbones/swin_v2_base.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformerV2',
        drop_path_rate=0.1,
        init_cfg=_base_.model.backbone.init_cfg,
        **_base_.stock_encoder,
    ),
    head=dict(in_channels=_base_.stock_channels[-1]),
)

img_size = _base_.stock_encoder.img_size
train_crop = _base_.train_crop | dict(scale=img_size)
train_pipeline = [_base_.load, train_crop, *_base_.augmentation, _base_.pack]
# 256 / 0.875, a margin around the crop
test_resize = _base_.test_resize | dict(scale=292)
test_crop = _base_.test_crop | dict(crop_size=img_size)
test_pipeline = [_base_.test_load, test_resize, test_crop, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
