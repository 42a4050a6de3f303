"""SimMIM (arXiv 2111.09886) with Swin base at 192 pixels: MixMIM with a mask token.

Decoder, loss, optimizer and schedule are those of mmpretrain's SimMIM config. There is
no stochastic depth, as in the authors' code. Three things differ: the batch shares its
mask, 21 of 36 cells are hidden, where SimMIM rounds 0.6 up to 22, and crops are resized
with antialiasing.

The learning rate is 1e-4 per 512 images. It scales with the images per update: images
per GPU times GPUs times accumulated batches.
"""

_base_ = [
    '../_base_/models/mixmim_pretrain.py',
    '../_base_/backbones/swin_base.py',
    '../_base_/datasets/in1k_pretrain.py',
    '../_base_/schedules/pretrain_300e.py',
    '../_base_/default_runtime.py',
]

img_size = 192

model = dict(
    backbone=dict(
        _delete_=True,
        type='MixMIMSwinTransformer',
        arch=_base_.stock_encoder.arch,
        img_size=img_size,
        window_size=6,
        drop_path_rate=0.0,
    ),
    neck=dict(
        _delete_=True,
        type='SimMIMLinearDecoder',
        in_channels=_base_.stock_channels[-1],
        encoder_stride=32,
    ),
    head=dict(
        _delete_=True,
        type='SimMIMHead',
        patch_size=4,
        loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
    ),
    filling='mask_token',
    mask_ratio=0.6,
)

resize = dict(scale=img_size, interpolation='bilinear')
train_crop = _base_.train_crop | resize | dict(crop_ratio_range=(0.67, 1.0))
train_pipeline = [train_crop, _base_.pack]
held_out_pipeline = [_base_.held_out_crop | resize, _base_.pack]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=held_out_pipeline))

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(lr=1e-4, betas=(0.9, 0.999)),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        custom_keys=dict(relative_position_bias_table=dict(decay_mult=0.0))
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-3, end=10, convert_to_iter_based=True),
    dict(
        type='MultiStepLR',
        milestones=[700],
        begin=10,
        end=800,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=800)
auto_scale_lr = dict(base_batch_size=512)
