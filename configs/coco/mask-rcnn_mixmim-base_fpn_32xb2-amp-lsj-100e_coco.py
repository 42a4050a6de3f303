"""Mask R-CNN on COCO for 100 epochs of large-scale jitter at 1024 pixels.

The paper's authors released no detection code. The settings follow ViTDet (arXiv
2203.16527, appendix A): batch size 64, learning rate 1e-4, weight decay 0.1, drop
path 0.1, a warm-up of 250 iterations, steps at 88% and 96% of the training. The
layer decay is ViTDet's for a model of 24 blocks; this encoder has 24.

Windows: at 1024 pixels the maps have 256, 128, 64 and 32 tokens a side. Windows of
16, 16, 32 and 32 divide them without padding. The last one covers its map, so
information can spread over the whole image.
"""

_base_ = [
    '../_base_/models/mask-rcnn_mixmim_fpn.py',
    'mmdet::common/lsj-100e_coco-instance.py',
]

img_size = 1024

model = dict(
    data_preprocessor=dict(
        batch_augments=[
            dict(type='BatchFixedSizePad', size=(img_size, img_size), pad_mask=True)
        ]
    ),
    backbone=dict(img_size=img_size, window_size=[16, 16, 32, 32]),
)

train_pipeline = [
    dict(type='mmmixmim.LoadImageOrSkip'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomResize',
        scale=(img_size, img_size),
        ratio_range=(0.1, 2.0),
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(img_size, img_size),
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))

test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# One epoch of the dataloader is four of COCO.
optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, fused=True
    ),
    constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', begin=0, end=25, milestones=[22, 24], gamma=0.1),
]
auto_scale_lr = dict(enable=True, base_batch_size=64)

train_cfg = dict(type='mmmixmim.ResumableEpochLoop')
default_hooks = dict(
    checkpoint=dict(type='mmmixmim.SafeCheckpointHook'),
    preemption=dict(type='mmmixmim.PreemptionHook'),
    non_finite=dict(type='mmmixmim.NonFiniteHook'),
    plain_checkpoint=dict(type='mmmixmim.PlainCheckpointHook'),
)
