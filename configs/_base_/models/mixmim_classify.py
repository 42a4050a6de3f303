"""The encoder with a linear head on its average-pooled last map.

A recipe sets num_classes of head and data preprocessor to the dataset's.

Start from a pretrained encoder with
--cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = '../backbones/mixmim.py'

model = dict(
    _scope_='mmmixmim',
    type='ImageClassifier',
    backbone=dict(
        type='MixMIMTransformer',
        arch='base',
        img_size=224,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        in_channels=_base_.channels.base[-1],
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
    train_cfg=dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    ),
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
)

custom_hooks = [dict(type='ClassCheckHook')]
