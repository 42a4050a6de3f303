"""A small UperNet on the drawn shapes, from scratch, on a CPU.

To start from a pretrained encoder: --cfg-options
model.backbone.init_cfg.type=Pretrained
model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = [
    '../_base_/seg_runtime.py',
    '../_base_/backbones/mixmim_shapes.py',
    '../_base_/annotation_check.py',
]

classes = ('background', 'disc', 'square', 'triangle', 'star', 'cross')
palette = [
    [220, 220, 220],
    [31, 119, 180],
    [255, 127, 14],
    [44, 160, 44],
    [214, 39, 40],
    [148, 103, 189],
]
norm_cfg = dict(type='BN')
img_size = _base_.encoder.img_size

model = dict(
    _scope_='mmseg',
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(img_size, img_size),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='mmmixmim.MixMIMTransformer', out_indices=(0, 1, 2), **_base_.encoder
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=_base_.channels,
        in_index=[0, 1, 2],
        pool_scales=(1, 2, 3),
        channels=64,
        num_classes=len(classes),
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)

train_pipeline = [
    dict(type='mmmixmim.LoadImageOrSkip'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomFlip', prob=[0.5, 0.25], direction=['horizontal', 'vertical']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=classes, palette=palette),
        reduce_zero_label=True,
        data_root='data/shapes',
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=dict(classes=classes, palette=palette),
        reduce_zero_label=True,
        data_root='data/shapes',
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='mmmixmim.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = [
    dict(type='mmmixmim.WarmupCosineLR', warmup=2, end=24, convert_to_iter_based=True)
]
train_cfg = dict(type='mmmixmim.ResumableEpochLoop', max_epochs=24, val_interval=24)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=True),
    checkpoint=dict(by_epoch=True, interval=24),
)
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(by_epoch=True)
randomness = dict(seed=0)
