"""As the base model's config, with the drop path of ViTDet's large model.

Activation checkpointing saves memory and makes a step about a third slower.
Turn it off with --cfg-options model.backbone.with_cp=False
"""

_base_ = 'mask-rcnn_mixmim-base_fpn_8xb2-amp-ms-crop-3x_coco.py'

model = dict(
    backbone=dict(arch='large', drop_path_rate=0.4, with_cp=True),
    neck=dict(in_channels=_base_.channels.large),
)
