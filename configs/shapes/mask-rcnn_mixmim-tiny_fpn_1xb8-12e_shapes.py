"""A small Mask R-CNN on the drawn shapes, from scratch, on a CPU.

To start from a pretrained encoder: --cfg-options
model.backbone.init_cfg.type=Pretrained
model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/det_runtime.py',
    '../_base_/backbones/mixmim_shapes.py',
    '../_base_/annotation_check.py',
]

classes = ('disc', 'square', 'triangle', 'star', 'cross')
data_root = 'data/shapes/'
img_size = _base_.encoder.img_size
# Heads without normalisation take longer to train from scratch (arXiv 1811.08883).
norm_cfg = dict(type='GN', num_groups=16)

model = dict(
    _scope_='mmdet',
    backbone=dict(
        _delete_=True,
        type='mmmixmim.MixMIMTransformer',
        out_indices=(0, 1, 2),
        **_base_.encoder,
    ),
    neck=dict(
        in_channels=_base_.channels, out_channels=64, num_outs=4, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, roi_layer=dict(sampling_ratio=1), finest_scale=14
        ),
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=1,
            num_shared_fcs=1,
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            num_classes=len(classes),
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(
            out_channels=64,
            roi_layer=dict(output_size=7, sampling_ratio=1),
            finest_scale=14,
        ),
        mask_head=dict(
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            num_classes=len(classes),
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.25), mask_size=14),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=30)),
)

train_pipeline = [
    dict(type='mmmixmim.LoadImageOrSkip'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5, direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(img_size, img_size), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=classes),
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=dict(classes=classes),
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = [
    dict(type='mmmixmim.WarmupCosineLR', warmup=2, end=12, convert_to_iter_based=True)
]
train_cfg = dict(type='mmmixmim.ResumableEpochLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=12),
)
randomness = dict(seed=0)
