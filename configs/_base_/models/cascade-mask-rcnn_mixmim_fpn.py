"""Cascade Mask R-CNN with FPN on the base encoder.

Start from a pretrained encoder with
--cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'

model = dict(
    _scope_='mmdet',
    backbone=dict(
        _delete_=True,
        type='mmmixmim.MixMIMTransformer',
        arch='base',
        img_size=224,
        drop_path_rate=0.1,
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

custom_hooks = [dict(type='mmmixmim.AnnotationCheckHook')]
