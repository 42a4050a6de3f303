"""Cascade Mask R-CNN with FPN on the base encoder.

A recipe sets img_size and window_size of the backbone.
"""

_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    '../backbones/mixmim_dense.py',
    '../annotation_check.py',
]

model = dict(
    _scope_='mmdet',
    backbone=dict(_delete_=True, **_base_.encoder),
    neck=dict(in_channels=_base_.channels.base),
)
