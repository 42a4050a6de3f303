"""A linear classifier on normalised, average-pooled features of a frozen encoder.

Name the pretrained encoder with
--cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = 'mixmim_classify.py'

model = dict(
    backbone=dict(drop_path_rate=0.0, frozen_stages=4),
    neck=[
        dict(type='GlobalAveragePooling'),
        dict(type='ClsBatchNormNeck', input_features=_base_.channels.base[-1]),
    ],
    head=dict(
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
    train_cfg=None,
)
